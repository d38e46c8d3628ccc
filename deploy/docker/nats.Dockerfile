# nats-server with JetStream, and `headwater` for its health check. Built by deploy/docker/build;
# if a registry can be reached, the official image `nats` works as well.
FROM scratch

ARG VERSION=0.0.0
LABEL org.opencontainers.image.title="headwater-nats" \
      org.opencontainers.image.description="nats-server with JetStream, durable as Headwater needs it" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"

COPY rootfs/ /
COPY nats-server.conf /etc/nats/
# A named volume takes its owner from here when it is new.
COPY --chown=65532:65532 data/ /data/

ENV PATH=/bin
USER 65532:65532
WORKDIR /data
VOLUME /data
EXPOSE 4222 8222
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["headwater", "ready", "http://127.0.0.1:8222/healthz?js-enabled-only=true"]

ENTRYPOINT ["nats-server"]
CMD ["--config", "/etc/nats/nats-server.conf"]
