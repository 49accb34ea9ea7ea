# syntax=docker/dockerfile:1
FROM python:3.11-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY shared shared
COPY producer producer
COPY worker worker
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:3.11-slim
# What is installed is what `make lock` wrote down, by version and sha256. torch from PyPI brings its own CUDA libraries;
# https://download.pytorch.org/whl/cpu as TORCH_INDEX makes a small CPU image: the same version of torch, but files that
# the lock has no hashes of.
ARG TORCH_INDEX=
RUN --mount=type=bind,source=deploy,target=/deploy \
    pip install --no-cache-dir --no-deps --require-hashes --requirement /deploy/requirements.lock
RUN --mount=type=bind,source=deploy,target=/deploy \
    if [ -z "$TORCH_INDEX" ]; \
    then pip install --no-cache-dir --no-deps --require-hashes --requirement /deploy/requirements-cuda.lock; \
    else pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" "$(grep --only-matching '^torch==[^ ]*' /deploy/requirements-cuda.lock)"; \
    fi
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir --no-deps --no-index /dist/lorapool-*.whl && pip check
COPY --chmod=755 deploy/one-gpu /usr/local/bin/one-gpu
RUN useradd --create-home --uid 10001 lorapool \
 && install -d -o lorapool -g lorapool /run/lorapool /adapters /home/lorapool/.cache /home/lorapool/.cache/huggingface /home/lorapool/.cache/lorapool
USER lorapool
WORKDIR /home/lorapool
ENTRYPOINT ["lorapool-worker"]
CMD ["run"]
