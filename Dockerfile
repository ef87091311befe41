# Gatebell as an image: built in one stage, run in another that holds the program alone.
#
#   docker build -t gatebell .
#
# It serves as a user of its own (10001), keeps its state in /var/lib/gatebell and what several processes share in /keys,
# and reads /etc/gatebell/gatebell.toml.

FROM rust:1.95.0-slim-trixie AS build
# The image has the pinned toolchain; without this line rustup would fetch its linter and formatter, too.
ENV RUSTUP_TOOLCHAIN=1.95.0
# Perl is for OpenSSL, which librdkafka needs for TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ make perl \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# The cache belongs to the builder, so the program is taken out of it in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin gatebell --features kafka-tls-vendored \
    && install -D target/release/gatebell /out/gatebell

FROM debian:trixie-slim
# Gateways and the app's backend are reached by TLS.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin gatebell \
    && install -d -m 0700 -o gatebell -g gatebell /var/lib/gatebell /keys
COPY --from=build /out/gatebell /usr/local/bin/gatebell
USER 10001:10001
ENV GATEBELL_CONFIG=/etc/gatebell/gatebell.toml \
    GATEBELL_DATA=/var/lib/gatebell
VOLUME /var/lib/gatebell
# Taps, callbacks, metrics.
EXPOSE 8080 8081 9090
ENTRYPOINT ["gatebell"]
CMD ["serve"]
