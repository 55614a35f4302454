//! Cognite Data Fusion's HTTP API in memory, for the tests and the demo of cdf_fdw. See README.md.

mod admin;
mod auth;
mod codec;
mod description;
mod errors;
mod faults;
mod lag;
mod limits;
mod record;
mod reply;
mod resources;
mod server;
mod sessions;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use tokio::net::TcpListener;

const USAGE: &str = "usage: cdf-emulator [--listen HOST:PORT] [--port-file PATH]";

struct Arguments {
    listen: String,
    port_file: Option<PathBuf>,
}

fn arguments(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut arguments = Arguments { listen: "127.0.0.1:0".into(), port_file: None };
    while let Some(word) = words.next() {
        let (name, inline) = match word.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (word, None),
        };
        let mut value = || inline.clone().or_else(|| words.next()).ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--listen" => arguments.listen = value()?,
            "--port-file" => arguments.port_file = Some(value()?.into()),
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
    axum::serve(listener, server::router(Arc::new(server::App::default()))).await
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match arguments(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("cdf-emulator: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cdf-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}
