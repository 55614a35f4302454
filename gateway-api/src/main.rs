//! Registration over HTTP: what Cognite's hosted PostgreSQL gateway offers for it, in front of a PostgreSQL with
//! cdf_fdw.
//!
//! It holds no state: it asks PostgreSQL, as a role that may call the functions of registration, and CDF, with the
//! caller's token.
//!
//! Each layer is a folder: `http` reads requests and writes answers, `database` calls PostgreSQL, `cdf` calls CDF. The
//! latter two know nothing of the first.

mod cdf;
mod config;
mod database;
mod error;
mod http;
mod log;
mod server;

use std::process::ExitCode;

use clap::Parser;

use crate::config::Options;

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(server::run(options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
