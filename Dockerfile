# craft's daemon in a container. Not built in CI: see docs/install.md.
FROM python:3.12-slim

# Empty: what PyPI has, which is torch for CUDA.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

RUN useradd --create-home --uid 1000 craft && mkdir /data && chown craft /data
WORKDIR /opt/craft
COPY pyproject.toml constraints.txt README.md LICENSE* ./
COPY cli cli
COPY daemon daemon
COPY protos protos
RUN python -m venv /opt/venv \
 && if [ -n "$TORCH_INDEX" ]; then /opt/venv/bin/pip install --no-cache-dir torch --index-url "$TORCH_INDEX"; fi \
 && /opt/venv/bin/pip install --no-cache-dir -c constraints.txt '.[daemon]'

USER craft
ENV PATH=/opt/venv/bin:$PATH \
    HF_HOME=/data/huggingface \
    CRAFT_DATA_DIR=/data/craft \
    CRAFT_STATE_DIR=/data/state \
    CRAFT_RUNTIME_DIR=/tmp/craft
VOLUME /data
EXPOSE 7811
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s CMD ["craft", "daemon", "wait", "--timeout", "3"]
# Every caller from beyond the container needs a key, and without one this port is not opened: docs/install.md
CMD ["craft", "serve", "--http=0.0.0.0:7811"]
