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
# What nobody imports: a second, asynchronous copy of the Kubernetes client (65 MB), numpy's own tests (7 MB).
RUN printf '%s\n' 'cd /opt/joulepath/lib/python3*/site-packages' 'rm -rf kubernetes/aio' \
    'find numpy -depth -type d -name tests -exec rm -r {} +' > /trim.sh
# The command, and the version as Python knows it; our packages are copied, so that a change of one builds no wheel.
RUN printf '%s\n' 'set -e; cd /opt/joulepath' \
    'version=$(sed -n "s/^version = \"\(.*\)\"/\1/p" /locks/pyproject.toml)' \
    'mkdir src/joulepath-$version.dist-info' \
    'printf "Metadata-Version: 2.1\nName: joulepath\nVersion: $version\n" > src/joulepath-$version.dist-info/METADATA' \
    'printf "#!/opt/joulepath/bin/python\nfrom joulepath_$1.__main__ import main\nraise SystemExit(main())\n" > bin/joulepath-$1' \
    'chmod 755 bin/joulepath-$1' \
    'bin/python -m compileall -q src' > /finish.sh

FROM pip AS operator-packages
COPY locks/operator.txt /locks/
RUN /pip/bin/pip --python /opt/joulepath/bin/python install --require-hashes --no-deps --only-binary :all: -r /locks/operator.txt \
    && sh /trim.sh
COPY crds/joulepath_crds /opt/joulepath/src/joulepath_crds
COPY operator/joulepath_planner /opt/joulepath/src/joulepath_planner
COPY operator/joulepath_operator /opt/joulepath/src/joulepath_operator
COPY pyproject.toml /locks/
RUN sh /finish.sh operator

FROM pip AS agent-packages
COPY locks/agent.txt /locks/
RUN /pip/bin/pip --python /opt/joulepath/bin/python install --require-hashes --no-deps --only-binary :all: -r /locks/agent.txt \
    && sh /trim.sh
COPY crds/joulepath_crds /opt/joulepath/src/joulepath_crds
COPY agent/joulepath_trainer /opt/joulepath/src/joulepath_trainer
COPY agent/joulepath_agent /opt/joulepath/src/joulepath_agent
COPY pyproject.toml /locks/
RUN sh /finish.sh agent

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
