# A PostgreSQL with cdf_fdw, ready to be given to an ETL tool: TLS only, SCRAM only, extension created.
#   docker build -t cdf-gateway .
#   docker run -d --name cdf-gateway -p 5432:5432 -e POSTGRES_PASSWORD=… -v gateway:/var/lib/postgresql/data cdf-gateway
ARG PG_MAJOR=17

FROM postgres:${PG_MAJOR} AS builder
ARG PG_MAJOR
ARG RUST_VERSION=1.95.0
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        build-essential ca-certificates clang curl libclang-dev pkg-config "postgresql-server-dev-${PG_MAJOR}" \
    && rm -rf /var/lib/apt/lists/*
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
ENV CARGO_HOME=/opt/cargo RUSTUP_HOME=/opt/rustup PATH=/opt/cargo/bin:$PATH
RUN curl --proto '=https' --tlsv1.2 -fsS https://sh.rustup.rs \
    | sh -s -- -y --no-modify-path --profile minimal --default-toolchain "${RUST_VERSION}"
WORKDIR /build
COPY Cargo.toml Cargo.lock cdf_fdw.control ./
COPY scripts ./scripts
COPY sql ./sql
COPY src ./src
COPY tests/emulator ./tests/emulator
COPY bench/sink ./bench/sink
COPY gateway-api ./gateway-api
COPY tests/programs/rust ./tests/programs/rust
ENV PG_CONFIG=/usr/lib/postgresql/${PG_MAJOR}/bin/pg_config
RUN scripts/build.sh extension \
    && scripts/build.sh gateway-api \
    && strip --strip-debug target/release/libcdf_fdw.so target/release/cdf-gateway-api \
    && DESTDIR=/out scripts/install.sh \
    && install -D -m 755 target/release/cdf-gateway-api /out/usr/local/bin/cdf-gateway-api

FROM postgres:${PG_MAJOR}
# ca-certificates: what the certificates of CDF and of the identity provider are checked against. openssl: makes the
# certificate of the first start.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates openssl \
    && rm -rf /var/lib/apt/lists/*
COPY --from=builder /out/ /
COPY docker/10-gateway.sh docker/20-extension.sql /docker-entrypoint-initdb.d/
COPY docker/entrypoint.sh docker/gateway-api.sh /usr/local/bin/
ENTRYPOINT ["entrypoint.sh"]
CMD ["postgres"]
