# The images of Joulepath: operator (also the webhook), agent, trainer.
#
#   docker build --target operator --tag REGISTRY/operator:0.1.0 .        and so on
#
# BASE is any Debian with Python 3.11 or newer and its venv module.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# pip lives in an environment of its own, so that none gets into the images.
FROM ${BASE} AS pip
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/joulepath
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# What nobody imports: a second, asynchronous copy of the Kubernetes client (65 MB), numpy's own tests (10 MB).
RUN printf '%s\n' 'cd /opt/joulepath/lib/python3*/site-packages' 'rm -rf kubernetes/aio' \
    'find numpy -depth -type d -name tests -exec rm -r {} +' > /trim.sh

FROM pip AS operator-packages
COPY locks/operator.txt /locks/
RUN /pip/bin/pip --python /opt/joulepath/bin/python install --require-hashes --no-deps --only-binary :all: -r /locks/operator.txt \
    && sh /trim.sh
COPY crds/joulepath_crds /opt/joulepath/src/joulepath_crds
COPY operator/joulepath_planner /opt/joulepath/src/joulepath_planner
COPY operator/joulepath_operator /opt/joulepath/src/joulepath_operator
RUN printf '%s\n' '#!/opt/joulepath/bin/python' 'from joulepath_operator.__main__ import main' 'raise SystemExit(main())' \
    > /opt/joulepath/bin/joulepath-operator \
    && chmod 755 /opt/joulepath/bin/joulepath-operator \
    && /opt/joulepath/bin/python -m compileall -q /opt/joulepath/src

FROM pip AS agent-packages
COPY locks/agent.txt /locks/
RUN /pip/bin/pip --python /opt/joulepath/bin/python install --require-hashes --no-deps --only-binary :all: -r /locks/agent.txt \
    && sh /trim.sh
COPY crds/joulepath_crds /opt/joulepath/src/joulepath_crds
COPY agent/joulepath_trainer /opt/joulepath/src/joulepath_trainer
COPY agent/joulepath_agent /opt/joulepath/src/joulepath_agent
RUN printf '%s\n' '#!/opt/joulepath/bin/python' 'from joulepath_agent.__main__ import main' 'raise SystemExit(main())' \
    > /opt/joulepath/bin/joulepath-agent \
    && chmod 755 /opt/joulepath/bin/joulepath-agent \
    && /opt/joulepath/bin/python -m compileall -q /opt/joulepath/src

FROM ${BASE} AS trainer-files
RUN apt-get update -q && apt-get install -q -y --no-install-recommends busybox-static
COPY agent/joulepath_trainer /joulepath/joulepath_trainer
# Pods of any user read these. Every image has a Python of its own version, so there is nothing to compile.
RUN cp /bin/busybox /joulepath/busybox && chmod -R a+rX,go-w /joulepath && mkdir -p /image/bin \
    && for applet in $(/bin/busybox --list); do ln -s /joulepath/busybox "/image/bin/$applet"; done

FROM ${BASE} AS operator
COPY --from=operator-packages /opt/joulepath /opt/joulepath
ENV PATH=/opt/joulepath/bin:$PATH PYTHONPATH=/opt/joulepath/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
ENTRYPOINT ["joulepath-operator"]
CMD ["run"]

FROM ${BASE} AS agent
COPY --from=agent-packages /opt/joulepath /opt/joulepath
ENV PATH=/opt/joulepath/bin:$PATH PYTHONPATH=/opt/joulepath/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Root without privileges: the kubelet's sockets are root's. The chart adds the one capability that clocks need.
USER 0:0
ENTRYPOINT ["joulepath-agent"]

# Copied into every training pod: small, so that no pod waits for it.
FROM scratch AS trainer
COPY --from=trainer-files /image /
COPY --from=trainer-files /joulepath /joulepath
USER 65532:65532
ENTRYPOINT ["/joulepath/busybox"]
