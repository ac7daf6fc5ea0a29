/* Contexts, streams and events of one process, and the queue of a stream. */
#ifndef VIRTUAL_GPUS_STREAM_H
#define VIRTUAL_GPUS_STREAM_H

#include "cuda.h"
#include "node.h"

struct CUctx_st {
	uint32_t device, gpu; /* ordinal in this process; number on the node */
	uint32_t owner;       /* this process among the GPU's owners */
	int primary, references;
	CUresult error; /* sticky, as a fault on a real device is */
	struct CUstream_st *legacy, *streams;
	struct CUctx_st *next;
};

/* A moment in a stream. `generation` counts records asked for, `done` those that the stream has reached. */
struct CUevent_st {
	CUcontext context;
	unsigned flags, references;
	uint64_t generation, done;
	int64_t t;
	struct CUevent_st *next;
};

enum operation_kind { RUN_KERNEL, WRITE_32, RECORD_EVENT, WAIT_EVENT, WAIT_STREAM, CALL_HOST };

struct operation {
	enum operation_kind kind;
	int64_t ready; /* when the host asked for it */
	uint32_t kernel, value;
	uint32_t *address;
	CUevent event;
	CUstream stream;
	uint64_t until; /* generation of the event, or number of the stream's operation, to wait for */
	CUhostFn function;
	void *data;
	struct operation *next;
};

struct CUstream_st {
	CUcontext context;
	unsigned flags, references;
	int closing;
	uint64_t enqueued, completed;
	int64_t t; /* planned end of the latest operation: the stream's own time */
	struct operation *first, *last;
	pthread_cond_t work;
	struct CUstream_st *next;
};

extern pthread_mutex_t process_lock; /* guards all of the above */
extern pthread_cond_t process_progress;

CUstream stream_open(CUcontext context, unsigned flags);
void stream_close(CUstream stream);
void stream_release(CUstream stream);
void event_release(CUevent event);
void stream_enqueue(CUstream stream, struct operation operation);
CUresult stream_drain(CUstream stream);

/* cuda.c: this process. What is called enter_... returns with process_lock held, or else the error, without. */
extern CUcontext process_contexts;
struct node *process_node(void);
int process_ready(void);
CUresult enter_context(CUcontext *current);
CUresult drain_context(CUcontext context);

#define NEED(condition, error)          \
	do {                            \
		if (!(condition))       \
			return (error); \
	} while (0)

#define LOCKED_RETURN(value)                         \
	do {                                         \
		CUresult result_ = (value);          \
		pthread_mutex_unlock(&process_lock); \
		return result_;                      \
	} while (0)

/* owner.c: this process among the owners of a GPU. */
int owner_acquire(struct node *node, uint32_t gpu, uint32_t *owner);
void owner_release(struct node *node, uint32_t gpu, uint32_t owner);

#endif
