//! cdf_fdw: a PostgreSQL foreign-data wrapper that delivers rows to Cognite Data Fusion (CDF) at COMMIT.
//!
//! A row's way: [`pg`] callback → typed cells → [`cdf`] encoder → buffer → flush → client. `cdf` calls nothing of
//! PostgreSQL and is unit-tested without it; `pg` is the thin layer above. [`seal`] knows of neither.

pub mod cdf;
pub mod seal;

#[cfg(feature = "pg")]
pub mod pg;
