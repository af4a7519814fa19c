# docker build -t avfuse . && docker run --rm -v "$PWD:/data" avfuse extract --videos /data/videos
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends ffmpeg && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/avfuse
COPY . .
RUN pip install --no-cache-dir --constraint constraints.txt ".[parquet,xarray,onnx]"
WORKDIR /data
ENTRYPOINT ["avfuse"]
