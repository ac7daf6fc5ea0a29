/* The virtual GPUs of one node: everything that its processes share, in one mapped file.
 *
 * Times are nanoseconds of CLOCK_MONOTONIC, the same in every process and container of a machine.
 * All durations in the file are already multiplied by the time scale: the C side knows no scale.
 *
 * A GPU's state is a simulation (struct sim) that is committed up to some moment `t` and integrated forward
 * on a copy by whoever wants to know "now". Kernels that were queued may start a little in the past (their
 * thread woke late), so nobody commits past `now - BACKDATE_NS` except for an event of the GPU itself. */
#ifndef VIRTUAL_GPUS_NODE_H
#define VIRTUAL_GPUS_NODE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum {
	MAX_GPUS = 16,
	MAX_CLOCKS = 128,
	MAX_KERNELS = 512,
	MAX_OWNERS = 16,
	MAX_CHANGES = 64,
	MAX_CHANGES_AHEAD = 8,
	MAX_ORDERS = 4096,
	NAME_SIZE = 64,
};

#define NODE_MAGIC 0x31757067766c756aull
#define NEVER INT64_MAX
#define BACKDATE_NS 200000000ll
#define NO_LOCK (-1)

/* Kinds of NVML calls that can be made to hang. */
enum { HANG_SET = 1, HANG_RESET = 2, HANG_READ = 4 };

/* Seconds and watts of one kernel at each supported clock, lowest first. */
struct kernel {
	uint32_t id; /* CRC-32 of the name */
	char name[NAME_SIZE - sizeof(uint32_t)];
	double time_s[MAX_CLOCKS];
	double power_w[MAX_CLOCKS];
};

/* What `init` decides and nobody changes. model.py mirrors this struct: keep the two equal. */
struct config {
	uint32_t size; /* sizeof(struct config), to catch a mirror that lags behind */
	uint32_t gpu_count, kernel_count;
	uint32_t clock_count, clock_min_mhz, clock_step_mhz, memory_clock_mhz;
	uint32_t root_only;   /* clocks and limits need CAP_SYS_ADMIN, as in the driver */
	uint32_t enforce_cap; /* the default power limit throttles too, not only one that was set */
	char gpu_name[NAME_SIZE];
	uint64_t seed;
	double block_s;          /* a set call returns after this long */
	double pause_s;          /* the GPU stands still for so long once a change is in force */
	double counter_period_s; /* the energy counter moves this often */
	double lag_spread;       /* half width of the spread of a lag, as a share */
	double time_noise, energy_noise; /* standard deviation from kernel to kernel, as a share */
	double idle_w;           /* no process has the GPU */
	double power_limit_w;
	double leak_per_k, reference_c, ambient_c, kelvin_per_w, heat_tau_s;
	double static_w[MAX_CLOCKS];   /* the part of the power that leaks, at reference_c */
	double blocking_w[MAX_CLOCKS]; /* a process waits on the GPU */
	double lag_s[2][MAX_CLOCKS];   /* [0 down, 1 up][target] */
	double gpu_power[MAX_GPUS], gpu_time[MAX_GPUS]; /* how this GPU differs, as factors */
	uint8_t uuid[MAX_GPUS][16];
	uint8_t minor[MAX_GPUS]; /* of /dev/nvidiaN: the order in which the driver found them, not that of the bus */
	uint8_t mig[MAX_GPUS];   /* MIG mode is on at first */
};

/* A clock range that gets into force at `t`. Clocks are indices into the table, NO_LOCK = default. */
struct change {
	int64_t t;
	int32_t low, high;
};

/* A call that set or reset a clock, as the driver took it. Clocks are in MHz, 0 = default. */
struct order {
	int64_t called, taken;
	uint32_t low_mhz, high_mhz;
};

struct run {
	uint32_t active, kernel, owner;
	uint64_t sequence;
	double progress, time_factor, power_factor;
};

struct sim {
	int64_t t;
	double energy_j, busy_s, temperature_c;
	/* What the counters show: their values at the last two ticks. */
	int64_t next_tick;
	double counter_j[2], counter_busy_s[2];
	int32_t low, high;
	double power_limit_w;
	uint32_t owners; /* bit mask of MAX_OWNERS */
	struct run run;
	int64_t last_end; /* when the latest kernel ended */
	int64_t changed;  /* when the latest clock change got into force */
	int64_t resumes;  /* the end of the pause after that: until then no kernel gets on */
	uint32_t changes;
	struct change change[MAX_CHANGES];
};

/* A process that has a context on the GPU. Its keeper thread holds `alive` as long as it lives; the kernel
 * marks a robust mutex whose holder dies, across containers and pid namespaces, which pids do not survive. */
struct owner {
	pthread_mutex_t alive;
	atomic_uint used;
	uint32_t pid; /* as the process sees itself */
	uint64_t memory_bytes;
	int64_t seen; /* last moment at which somebody saw it alive */
	uint64_t last_sequence;
	int64_t last_end; /* of its latest kernel */
};

struct gpu {
	pthread_mutex_t mutex; /* robust, process-shared: guards all that follows */
	atomic_uint epoch;     /* futex: moves whenever a running kernel must look again */
	atomic_uint current;   /* which of the two copies holds; a process that dies while writing spoils the other */
	struct sim sim[2];
	struct owner owner[MAX_OWNERS];
	uint64_t random, sequence;
	double shown_j; /* largest energy that the counter has shown */
	uint64_t sets, resets;
	uint64_t orders; /* how many there were; the last MAX_ORDERS are kept, number n at n % MAX_ORDERS */
	struct order order[MAX_ORDERS];
	uint32_t persistence, lost, set_error;
	uint32_t mig, mig_pending; /* the mode in force, and the one after the next reset */
	atomic_uint hang; /* calls that don't return: bits of HANG_... */
	double slower;    /* heat: how much longer than else kernels take, as a share; they begin after it was said */
};

struct node {
	uint64_t magic, size;
	struct config config;
	struct gpu gpu[MAX_GPUS];
	struct kernel kernel[MAX_KERNELS];
};

/* node.c */
int64_t now_ns(void);
struct node *node_attach(void); /* NULL and errno; the mapping lives as long as the process */
struct node *node_map(const char *path);
int node_open(void); /* the file that node_attach maps: a descriptor of it, or -1 and errno */
void node_initialise(struct node *node); /* after config and kernels are filled */
int node_visible(const struct node *node, uint32_t index[MAX_GPUS]);

/* Lock a GPU and load its committed state, dead owners reaped; then commit or just unlock. */
void gpu_lock(struct node *node, uint32_t gpu, struct sim *sim);
void gpu_commit(struct gpu *gpu, const struct sim *sim);
void gpu_unlock(struct gpu *gpu);
void gpu_notify(struct gpu *gpu);
void gpu_wait(struct gpu *gpu, uint32_t epoch, int64_t until);
void gpu_hang(struct gpu *gpu, uint32_t call); /* returns once that kind of call doesn't hang */
double gpu_random(struct gpu *gpu);   /* [-1, 1) */
double gpu_gaussian(struct gpu *gpu); /* mean 0, deviation 1, cut at 3 */

/* sim.c: pure */
int sim_clock(const struct node *node, uint32_t gpu, const struct sim *sim);
double sim_power_w(const struct node *node, uint32_t gpu, const struct sim *sim, int clock);
void sim_advance(const struct node *node, uint32_t gpu, struct sim *sim, int64_t until);
int64_t sim_kernel_end(const struct node *node, uint32_t gpu, const struct sim *sim);
void sim_drop_owner(struct sim *sim, uint32_t owner);

/* execute.c: a kernel on the GPU, from the process that owns it */
int execute_kernel(struct node *node, uint32_t gpu, uint32_t owner, uint32_t kernel, int64_t ready, int64_t *end);

#endif
