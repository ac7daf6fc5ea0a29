# The images of Joulepath: operator (also the webhook), agent.
#
#   docker build --target operator --tag REGISTRY/operator:0.1.0 .        and so on
#
# BASE is any Debian with Python 3.11 or newer and its venv module. Packages and sources are stages of their own, so
# that a change of a source installs nothing; there are few instructions, since some builders copy all files for each.
ARG BASE=docker.io/library/python:3.11-slim-bookworm

# pip lives in an environment of its own, so that none gets into the images. Two scripts:
# install.sh: the packages of a part by their hashes, without what nobody imports (a second, asynchronous copy of the
#   Kubernetes client, 65 MB; numpy's own tests, 7 MB), and the commands joulepath-NAME of all that are named.
# sources.sh: our packages compiled, and the version where importlib.metadata looks for it.
FROM ${BASE} AS tools
RUN python3 -m venv /pip && python3 -m venv --without-pip /opt/joulepath \
    && printf '%s\n' 'set -e; cd /opt/joulepath' \
    '/pip/bin/pip --python bin/python --no-cache-dir --disable-pip-version-check install -q --require-hashes --no-deps --only-binary :all: -r /build/$1.txt' \
    'cd lib/python3*/site-packages' 'rm -rf kubernetes/aio' \
    'find numpy -depth -type d -name tests -exec rm -r {} +' \
    'for name in "$@"; do printf "#!/opt/joulepath/bin/python\nfrom joulepath_$name.__main__ import main\nraise SystemExit(main())\n" > /opt/joulepath/bin/joulepath-$name' \
    'chmod 755 /opt/joulepath/bin/joulepath-$name; done' > /install.sh \
    && printf '%s\n' 'set -e; cd /src' \
    'version=$(sed -n "s/^version = \"\(.*\)\"/\1/p" pyproject.toml)' \
    'mkdir joulepath-$version.dist-info' \
    'printf "Metadata-Version: 2.1\nName: joulepath\nVersion: $version\n" > joulepath-$version.dist-info/METADATA' \
    'rm -f *.yaml pyproject.toml' 'chmod -R a+rX .' 'python3 -m compileall -q .' > /sources.sh

FROM tools AS operator-packages
COPY locks/operator.txt /build/
RUN sh /install.sh operator

FROM tools AS operator-sources
COPY crds operator pyproject.toml /src/
RUN sh /sources.sh

FROM tools AS agent-packages
COPY locks/agent.txt /build/
RUN sh /install.sh agent clocks injector warden

FROM tools AS agent-sources
COPY crds agent pyproject.toml /src/
RUN sh /sources.sh

# For nodes whose training pods mount the trainer's files: their init container runs it, in whatever image they have.
FROM ${BASE} AS busybox
RUN apt-get update -q && apt-get install -q -y --no-install-recommends busybox-static

# USER is for kopf, which asks for its user's name; nobody else knows one.
FROM ${BASE} AS operator
USER 65532:65532
ENV PATH=/opt/joulepath/bin:$PATH PYTHONPATH=/opt/joulepath/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 USER=joulepath
ENTRYPOINT ["joulepath-operator"]
CMD ["run"]
COPY --from=operator-packages /opt/joulepath /opt/joulepath
COPY --from=operator-sources /src /opt/joulepath/src

# Root without privileges: the kubelet's sockets are root's. The chart adds the capabilities that clocks need, to the containers that set them.
FROM ${BASE} AS agent
USER 0:0
ENV PATH=/opt/joulepath/bin:$PATH PYTHONPATH=/opt/joulepath/src PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# One heap for all threads, which hold Python's lock anyway, and no store of freed pieces for each of them, which fills up
# for days; and no thread of OpenBLAS for each of the node's cores.
ENV MALLOC_ARENA_MAX=1 GLIBC_TUNABLES=glibc.malloc.tcache_count=0 OPENBLAS_NUM_THREADS=1
ENTRYPOINT ["joulepath-agent"]
COPY --from=agent-packages /opt/joulepath /opt/joulepath
COPY --from=agent-sources /src /opt/joulepath/src
COPY --from=busybox /bin/busybox /opt/joulepath/bin/busybox
