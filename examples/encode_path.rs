//! Brings rows from typed cells into the buffer and completes the requests, as a load does, without PostgreSQL and
//! without a network. Profilers and instruction counts use it.
//!
//! `encode_path WORK ROWS`; WORK is points, scattered, events, assets or raw.

use cdf_fdw::cdf::buffer::{Extent, Foreground, Spill, TransactionBuffer};
use cdf_fdw::cdf::cell::Cell;
use cdf_fdw::cdf::error::Error;
use cdf_fdw::cdf::rehearsal::{connection, writer};
use cdf_fdw::cdf::writer::{Target, Writer};

/// Keeps everything in memory.
struct NoSpill;

impl Spill for NoSpill {
    fn write(&mut self, _parts: &[&[u8]]) -> Result<Extent, Error> {
        Err(Error::internal("nothing is to be spilled"))
    }

    fn read(&mut self, _extent: Extent) -> Result<Vec<u8>, Error> {
        Err(Error::internal("nothing was spilled"))
    }
}

/// Takes one row.
type Insert<'i> = dyn FnMut(&[Cell<'_>]) -> Result<(), Error> + 'i;

/// Rows of one kind: the resource, its columns, and the cells of row `at`.
struct Work {
    resource: &'static str,
    columns: &'static [&'static str],
    write: fn(&mut Insert<'_>, usize) -> Result<(), Error>,
}

fn points(insert: &mut Insert<'_>, at: usize, series: usize) -> Result<(), Error> {
    let name = format!("series-{:05}", at * 7919 % series);
    let moment = 757_382_400_000_000 + (at / series) as i64 * 1_000_000;
    let mut row = [const { Cell::Null }; 8];
    row[1] = Cell::Text(&name);
    row[4] = Cell::Timestamp(moment);
    row[5] = Cell::Float(at as f64 * 0.1);
    insert(&row)
}

const POINT: &[&str] = &[
    "id",
    "external_id",
    "instance_space",
    "instance_external_id",
    "timestamp",
    "value",
    "status_code",
    "status_symbol",
];

fn work(name: &str) -> Option<Work> {
    Some(match name {
        "points" => {
            Work { resource: "datapoints", columns: POINT, write: |insert, at| points(insert, at, 100) }
        }
        "scattered" => {
            Work { resource: "datapoints", columns: POINT, write: |insert, at| points(insert, at, 10_000) }
        }
        "events" => Work {
            resource: "events",
            columns: &["external_id", "start_time", "end_time", "type", "subtype", "description", "metadata"],
            write: |insert, at| {
                let key = format!("event-{at:07}");
                let start = 757_382_400_000_000 + at as i64 * 1_000_000;
                let metadata = format!(
                    r#"{{"shift": "{}", "batch": "{at}", "operator": "operator {}"}}"#,
                    at % 3,
                    at % 17
                );
                insert(&[
                    Cell::Text(&key),
                    Cell::Timestamp(start),
                    Cell::Timestamp(start + 60_000_000),
                    Cell::Text("alarm"),
                    Cell::Text("high pressure"),
                    Cell::Text("The pressure was above its limit."),
                    Cell::Json(&metadata),
                ])
            },
        },
        "assets" => Work {
            resource: "assets",
            columns: &["external_id", "name", "parent_external_id", "description"],
            write: |insert, at| {
                let (key, parent) = (format!("asset-{at:07}"), format!("asset-{:07}", at / 10));
                let parent = if at == 0 { Cell::Null } else { Cell::Text(&parent) };
                insert(&[Cell::Text(&key), Cell::Text(&key), parent, Cell::Text("A pump of the plant")])
            },
        },
        "raw" => Work {
            resource: "raw_rows",
            columns: &[
                "key", "site", "tag", "unit", "measured", "received", "value", "low", "high", "counter",
            ],
            write: |insert, at| {
                let (key, tag) = (format!("row-{at:07}"), format!("site-3.tag-{}", at % 997));
                let moment = 757_382_400_000_000 + at as i64 * 1_000_000;
                insert(&[
                    Cell::Text(&key),
                    Cell::Text("site-3"),
                    Cell::Text(&tag),
                    Cell::Text("bar"),
                    Cell::Timestamp(moment),
                    Cell::Timestamp(moment + 17_000_000),
                    Cell::Float(at as f64 * 0.25),
                    Cell::Float(0.0),
                    Cell::Float(100.5),
                    Cell::Int(at as i64),
                ])
            },
        },
        _ => return None,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let usage = "encode_path points|scattered|events|assets|raw ROWS";
    let [name, rows] = &*arguments else { return Err(usage.into()) };
    let (work, rows) = (work(name).ok_or(usage)?, rows.parse::<usize>()?);
    let mut writer = writer(work.resource, work.columns, &connection()?)?;
    let mut buffer = TransactionBuffer::new(usize::MAX, &Foreground);
    for at in 0..rows {
        (work.write)(&mut |row| insert(&mut writer, &mut buffer, row), at)?;
    }
    println!("{rows} rows of {} in {} requests", work.resource, finish(buffer)?);
    Ok(())
}

/// Counted per row, without the work of making the row.
#[inline(never)]
fn insert(writer: &mut Writer, buffer: &mut TransactionBuffer, row: &[Cell<'_>]) -> Result<(), Error> {
    writer.insert(Target { buffer, subtransaction: 1, spill: &mut NoSpill }, row)
}

/// Counted at the end.
#[inline(never)]
fn finish(buffer: TransactionBuffer) -> Result<usize, Error> {
    Ok(buffer.finish()?.iter().map(|delivery| delivery.chunks.len()).sum())
}
