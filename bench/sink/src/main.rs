//! A stand-in for Cognite Data Fusion that costs as little as it can: it reads every request to its last byte, counts what
//! is in it, and forgets it. For the benchmark of cdf_fdw; for tests there is the emulator, which is strict.
//!
//! It answers what loads need: a token, `POST /timeseries/data`, create, update and byids of assets, events and time
//! series, and RAW rows. Keys of items are remembered, so that creating an existing one is refused as CDF does.
//!
//! Admin interface, without authentication:
//!
//! | request | effect |
//! |---|---|
//! | `POST /admin/reset` | forgets keys and counts; the latency stays |
//! | `GET /admin/counts` | what came in, see [`tally::Totals`] |
//! | `POST /admin/latency` | `{"ms": 50}`: every answer of the API (not of the token endpoint) waits so long |

mod gzip;
mod items;
mod points;
mod server;
mod tally;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use axum::serve::ListenerExt;
use tokio::net::TcpListener;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: cdf-sink [--listen HOST:PORT] [--port-file PATH] [--latency MS]";

struct Arguments {
    listen: String,
    port_file: Option<PathBuf>,
    latency: u64,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { listen: "127.0.0.1:0".into(), port_file: None, latency: 0 };
    while let Some(name) = words.next() {
        let mut value = || words.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--listen" => arguments.listen = value()?,
            "--port-file" => arguments.port_file = Some(value()?.into()),
            "--latency" => {
                arguments.latency = value()?.parse().map_err(|error| format!("--latency: {error}"))?
            }
            _ => return Err(format!("unknown argument {name}")),
        }
    }
    Ok(arguments)
}

/// Writes the port to another file and renames that, so that a reader never sees half of it.
fn write_port(path: &Path, port: u16) -> std::io::Result<()> {
    let beside = path.with_extension("partial");
    std::fs::write(&beside, format!("{port}\n"))?;
    std::fs::rename(beside, path)
}

async fn run(arguments: Arguments) -> std::io::Result<()> {
    let listener = TcpListener::bind(&arguments.listen).await?;
    let address = listener.local_addr()?;
    if let Some(path) = &arguments.port_file {
        write_port(path, address.port())?;
    }
    println!("listening on http://{address}");
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            eprintln!("cdf-sink: TCP_NODELAY: {error}");
        }
    });
    axum::serve(listener, server::router(Arc::new(server::App::new(arguments.latency)))).await
}

// Two workers can handle the eight concurrent requests of a backend, and leave a machine of few cores to the backend.
#[tokio::main(worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("cdf-sink: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cdf-sink: {error}");
            ExitCode::FAILURE
        }
    }
}
