# The image is one file over a base that holds glibc's libraries, certificates and time zones. The README has the commands.
#
#   BUILDER, RUNTIME    mirrors or pinned digests of the two bases; both are Debian 12, for the builder's glibc must not be newer than the runtime's
#   VERSION, REVISION   for the labels
#   TARGETARCH          amd64 or arm64; builders set it by themselves, from their --platform
ARG BUILDER=docker.io/library/rust:1.95-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

# On this machine's own platform, whatever the image is for: compiling for another one takes no longer, emulating it takes hours.
FROM --platform=${BUILDPLATFORM} ${BUILDER} AS build
ARG TARGETARCH
WORKDIR /build
# What the target needs and the builder lacks, which for its own architecture is nothing. librdkafka's configure knows a compiler only as CC.
# The compiler's version is the release's own; a pinned one would vanish from the mirrors with the next point release.
# hadolint ignore=DL3008
RUN case "$TARGETARCH" in \
      amd64) cpu=x86_64 ;; \
      arm64) cpu=aarch64 ;; \
      *) echo "TARGETARCH is amd64 or arm64, not '$TARGETARCH'" >&2; exit 1 ;; \
    esac \
    && if ! command -v "$cpu-linux-gnu-g++"; then \
      apt-get update \
      && apt-get install -y --no-install-recommends "crossbuild-essential-$TARGETARCH" \
      && rm -rf /var/lib/apt/lists/* \
      && rustup target add "$cpu-unknown-linux-gnu"; \
    fi \
    && mkdir .cargo \
    && printf '[build]\ntarget = "%s-unknown-linux-gnu"\n[target.%s-unknown-linux-gnu]\nlinker = "%s-linux-gnu-gcc"\n' "$cpu" "$cpu" "$cpu" > .cargo/config.toml \
    && printf '[env]\nCC = "%s-linux-gnu-gcc"\nCXX = "%s-linux-gnu-g++"\nAR = "%s-linux-gnu-ar"\n' "$cpu" "$cpu" "$cpu" >> .cargo/config.toml
# The lines for a debugger are not shipped, so they are not made either.
ENV CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=symbols
# The dependencies first, around an empty crate (the manifest names the benchmark): OpenSSL and librdkafka take minutes, and this layer changes only with these two files.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src benches \
    && touch src/lib.rs benches/instructions.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs build.rs \
    && cargo build --release --locked
COPY build.rs ./
COPY proto proto
# What `outrigger inject` puts into pods.
COPY deploy/kubernetes/sidecar.yaml deploy/kubernetes/
COPY src src
# The copied files may be older than the empty ones, and cargo goes by the time.
RUN touch build.rs src/main.rs src/lib.rs \
    && cargo build --release --locked \
    && cp target/*/release/outrigger /outrigger

FROM ${RUNTIME}
ARG RUNTIME
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="outrigger" \
      org.opencontainers.image.description="A Kafka sidecar: publish and subscribe over gRPC, with answers that are the truth" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="https://github.com/outrigger-kafka/outrigger" \
      org.opencontainers.image.base.name="${RUNTIME}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /outrigger /outrigger
# A number, so that Kubernetes can check runAsNonRoot.
USER 65532:65532
# The admin port. gRPC listens on loopback, which the containers of a pod share.
EXPOSE 7421
ENTRYPOINT ["/outrigger"]
CMD ["serve"]
