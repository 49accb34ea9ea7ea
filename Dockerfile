# syntax=docker/dockerfile:1
FROM python:3.11-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY producer producer
COPY worker worker
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.11-slim
# Plain torch brings its own CUDA libraries; https://download.pytorch.org/whl/cpu as TORCH_INDEX makes a small CPU image.
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=
RUN pip install --no-cache-dir ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "$TORCH"
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir "$(echo /dist/lorapool-*.whl)[worker]"
COPY --chmod=755 deploy/one-gpu /usr/local/bin/one-gpu
RUN useradd --create-home --uid 10001 lorapool \
 && install -d -o lorapool -g lorapool /run/lorapool /adapters /home/lorapool/.cache /home/lorapool/.cache/huggingface
USER lorapool
WORKDIR /home/lorapool
ENTRYPOINT ["lorapool-worker"]
CMD ["run"]
