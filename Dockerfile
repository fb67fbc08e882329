# tally, small: built in one image, run in another one that holds the program, the embedded engine's library and a
# user of its own. Beside a ClickHouse server (docker-compose.yml) the library is not needed: --build-arg EMBEDDED=no
# leaves its 566 MB out.

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential ca-certificates cmake make npm pkg-config \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
ARG EMBEDDED=yes
RUN mkdir -p .libchdb && if [ "$EMBEDDED" = yes ]; then make libchdb; fi
RUN cargo build --release --locked --workspace && strip target/release/tally target/release/loadtest

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates curl \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin tally \
 && install -d -o tally -g tally -m 0700 /data
COPY --from=build /src/target/release/tally /src/target/release/loadtest /usr/local/bin/
COPY --from=build /src/.libchdb/ /usr/local/lib/tally/
ENV TALLY_DATA_DIR=/data \
    TALLY_LISTEN=0.0.0.0:8080 \
    TALLY_OPS_LISTEN=0.0.0.0:8081 \
    TALLY_LOG_FORMAT=json
USER tally
VOLUME /data
# 8080 is for the world, 8081 for Prometheus and probes: publish the first one only.
EXPOSE 8080 8081
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:8081/readyz"]
ENTRYPOINT ["tally"]
CMD ["serve"]
