# docker build --target cpu --tag avfuse:cpu .       docker build --target gpu --tag avfuse:gpu .
# docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/data" --volume avfuse-cache:/cache avfuse:cpu \
#     extract --videos videos --store features.zarr                                     with a GPU: --gpus all
#
# Dependencies are layers of their own, made from setup.cfg and constraints.txt alone: a change of the code installs
# nothing anew but avfuse itself.

FROM python:3.11-slim-bookworm AS base
# The version of ffmpeg is Debian's; pinned to a patch level, the build would break with the next security fix.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home avfuse \
    && install --directory --mode 1777 /cache \
    && install --directory --owner avfuse --group avfuse /data
# Weights lie in /cache/avfuse/weights. Anybody may write there: containers run as any user (--user).
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache \
    MPLCONFIGDIR=/cache/matplotlib
WORKDIR /opt/avfuse
COPY setup.cfg constraints.txt ./
RUN python -c "import configparser; c = configparser.ConfigParser(); c.read('setup.cfg'); e = c['options.extras_require']; \
print(c['options']['install_requires'], e['parquet'], e['xarray'], e['onnx'], sep='\n')" > requirements.txt

FROM base AS wheel
RUN pip install --constraint constraints.txt setuptools
COPY . .
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

FROM base AS gpu
RUN pip install --constraint constraints.txt --requirement requirements.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["avfuse"]

# The last one is what `docker build .` makes. PyTorch's own index has wheels without CUDA, a tenth in size.
FROM base AS cpu
RUN pip install --extra-index-url https://download.pytorch.org/whl/cpu \
    --constraint constraints.txt --requirement requirements.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels pip install --no-deps /wheels/*.whl
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["avfuse"]
