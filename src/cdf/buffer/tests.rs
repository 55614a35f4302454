//! The buffer against a plain model: whatever the order of writes, savepoints and spills, sending the waves one after
//! another ends in what the writes say.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use prost::Message;

use super::*;
use crate::cdf::cell::{Cell, EPOCH_MILLIS};
use crate::cdf::encode::fragment::{Fragment, Key};
use crate::cdf::encode::json::Properties;
use crate::cdf::encode::points::{wire, SeriesRef};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::{Identity, Kind};
use crate::cdf::http::connection::Connection;
use crate::cdf::rehearsal;
use crate::cdf::resource::Resource;
use crate::cdf::table::{OnConflict, Operation, Table};
use crate::cdf::writer::{Target, Writer};

/// A small generator, so that runs repeat.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A thread for each piece of work.
#[derive(Debug)]
struct Threads;

impl Background for Threads {
    fn start(&self, work: Box<dyn FnOnce() + Send>) {
        std::thread::spawn(work);
    }
}

fn background(seed: u64) -> &'static dyn Background {
    if seed.is_multiple_of(2) {
        &Threads
    } else {
        &Foreground
    }
}

fn connection() -> Arc<Connection> {
    rehearsal::connection().unwrap()
}

fn writer(resource: &str, columns: &[&str], connection: &Arc<Connection>) -> Writer {
    rehearsal::writer(resource, columns, connection).unwrap()
}

/// Compares, and names one difference instead of everything.
fn assert_same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    stored: &BTreeMap<K, V>,
    model: &BTreeMap<K, V>,
    seed: u64,
) {
    for key in stored.keys().chain(model.keys()) {
        assert_eq!(stored.get(key), model.get(key), "seed {seed}, {key:?}: stored, and as written");
    }
}

/// Removes a stretch of a series' time.
fn remove(points: &mut BTreeMap<(String, i64), u64>, series: &str, range: std::ops::Range<i64>) {
    let bounds = (series.to_owned(), range.start)..(series.to_owned(), range.end);
    let keys: Vec<_> = points.range(bounds).map(|(key, _)| key.clone()).collect();
    keys.iter().for_each(|key| {
        points.remove(key);
    });
}

/// What an item holds, by property.
type Item = BTreeMap<String, String>;

/// Sends the chunks wave by wave, as CDF would take them.
fn deliver_items(deliveries: Vec<Delivery>, spill: &mut MemorySpill) -> BTreeMap<String, Item> {
    let mut stored: BTreeMap<String, Item> = BTreeMap::new();
    for delivery in deliveries {
        let mut chunks = delivery.chunks;
        chunks.sort_by_key(|chunk| chunk.wave);
        let waves: Vec<usize> = chunks.iter().map(|chunk| chunk.wave).collect();
        let mut seen: HashSet<(usize, String)> = HashSet::new();
        for (chunk, wave) in chunks.into_iter().zip(waves) {
            let (rows, operation) = (chunk.rows, chunk.header.mode.operation);
            let body = chunk.into_body(spill).unwrap();
            assert!(rows <= 1000 && rows == body.items.len());
            let whole: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
            assert_eq!(whole["items"].as_array().unwrap().len(), rows);
            for at in 0..rows {
                let properties = Properties::parse(body.fragment(at).bytes()).unwrap();
                let key = properties.get("externalId").unwrap().get().to_owned();
                assert!(seen.insert((wave, key.clone())), "{key} twice in wave {wave}");
                if operation == Operation::Delete {
                    stored.remove(&key);
                    continue;
                }
                let item = stored.entry(key).or_default();
                for (name, value) in properties.0 {
                    item.insert(name.into_owned(), value.get().to_owned());
                }
            }
        }
    }
    stored
}

/// Runs random writes and savepoints; `write` is called with the subtransaction and a random number.
fn random_transaction<M: Clone + Default>(
    random: &mut Random,
    steps: usize,
    buffer: &mut TransactionBuffer,
    mut write: impl FnMut(&mut TransactionBuffer, &mut M, Subtransaction, &mut Random),
) -> M {
    let mut models: Vec<(Subtransaction, M)> = vec![(1, M::default())];
    let mut last = 1;
    for _ in 0..steps {
        match random.below(100) {
            0..=3 if models.len() < 6 => {
                last += 1;
                let model = models.last().unwrap().1.clone();
                models.push((last, model));
            }
            4..=6 if models.len() > 1 => {
                let (ended, model) = models.pop().unwrap();
                let parent = models.last_mut().unwrap();
                buffer.release(ended, parent.0);
                parent.1 = model;
            }
            7..=8 if models.len() > 1 => {
                let (ended, _) = models.pop().unwrap();
                buffer.rollback(ended);
            }
            _ => {
                let (subtransaction, model) = models.last_mut().unwrap();
                write(buffer, model, *subtransaction, random);
            }
        }
    }
    while let Some((ended, model)) = models.pop() {
        match models.last_mut() {
            Some(parent) => {
                buffer.release(ended, parent.0);
                parent.1 = model;
            }
            None => return model,
        }
    }
    unreachable!("the first model is the transaction's own")
}

#[test]
fn items_end_as_written_whatever_the_savepoints() {
    let connection = connection();
    for seed in 1..=60 {
        let mut random = Random(seed * 0x9E37_79B9);
        let mut spill = MemorySpill::default();
        // Few keys: merged in a chunk. Many: over several chunks. Little memory: spilled, and Bloom filters.
        let keys = [5, 400, 3000][(seed % 3) as usize];
        let limit = [1 << 30, 1 << 16, 1 << 20][(seed / 3 % 3) as usize];
        let mut buffer = TransactionBuffer::new(limit, background(seed));
        let mut assets = writer("assets", &["external_id", "name", "source"], &connection);
        let model = random_transaction(
            &mut random,
            6000,
            &mut buffer,
            |buffer, model: &mut BTreeMap<String, Item>, subtransaction, random| {
                let key = format!("k{}", random.below(keys));
                let text = random.below(1000).to_string();
                let value = [Cell::Text(&text), Cell::Null];
                let (name, source) = match random.below(3) {
                    0 => (&value[0], &value[1]),
                    1 => (&value[1], &value[0]),
                    _ => (&value[0], &value[0]),
                };
                let row = [Cell::Text(&key), *name, *source];
                let target = Target { buffer, subtransaction, spill: &mut spill };
                if random.below(4) == 0 {
                    assets.delete(target, &row).unwrap();
                    model.remove(&format!("\"{key}\""));
                    return;
                }
                assets.insert(target, &row).unwrap();
                let quoted = |text: &str| format!("\"{text}\"");
                let item = model.entry(quoted(&key)).or_default();
                item.insert("externalId".into(), quoted(&key));
                for (property, cell) in [("name", name), ("source", source)] {
                    if !cell.is_null() {
                        item.insert(property.into(), quoted(&text));
                    }
                }
            },
        );
        let stored = deliver_items(buffer.finish().unwrap(), &mut spill);
        assert_same(&stored, &model, seed);
        if limit == 1 << 16 && keys == 3000 {
            assert!(!spill.bytes.is_empty(), "seed {seed} was meant to spill");
        }
    }
}

/// What CDF holds of an item before: every second one exists.
fn before(key: &str) -> Option<Item> {
    let exists = key.ends_with(['0', '2', '4', '6', '8']);
    exists.then(|| ["name", "source"].map(|property| (property.to_owned(), "\"old\"".to_owned())).into())
}

/// Sends the chunks of all destinations wave by wave, as CDF would take them: what becomes of the items that are written.
fn deliver_modes(deliveries: Vec<Delivery>, spill: &mut MemorySpill) -> BTreeMap<String, Option<Item>> {
    let mut chunks: Vec<Chunk> = deliveries.into_iter().flat_map(|delivery| delivery.chunks).collect();
    chunks.sort_by_key(|chunk| chunk.wave);
    let mut stored: BTreeMap<String, Option<Item>> = BTreeMap::new();
    let mut seen: HashSet<(usize, String)> = HashSet::new();
    for chunk in chunks {
        let (wave, mode) = (chunk.wave, chunk.header.mode);
        let body = chunk.into_body(spill).unwrap();
        for fragment in body.fragments() {
            let row = fragment.parse().unwrap();
            let Some(Identity::ExternalId(key)) = row.identity() else { panic!("{fragment:?}") };
            assert!(seen.insert((wave, key.clone())), "{key} twice in wave {wave}");
            let item = stored.entry(key.clone()).or_insert_with(|| before(&key));
            let row = match (mode.operation, mode.on_conflict, &item) {
                (Operation::Delete, ..) => {
                    *item = None;
                    continue;
                }
                (_, OnConflict::Ignore, Some(_)) => continue,
                (_, _, item) => row.properties(item.is_some()),
            };
            let item = item.get_or_insert_default();
            for (name, value) in &row.0 {
                item.insert(name.clone().into_owned(), value.get().to_owned());
            }
        }
    }
    stored
}

#[test]
fn items_end_as_the_modes_say_over_several_connections() {
    use OnConflict::{Ignore, Update, UpdateListed};
    let columns = ["external_id", "name", "source"];
    let modes: [(OnConflict, Option<&[usize]>); 5] = [
        (Update, None),
        (Ignore, None),
        (UpdateListed, Some(&[1])),
        (UpdateListed, Some(&[2])),
        (UpdateListed, Some(&[1, 2])),
    ];
    for seed in 1..=60 {
        let mut random = Random(seed * 0x9E37_79B9);
        let mut spill = MemorySpill::default();
        let keys = [5, 400, 3000][(seed % 3) as usize];
        let limit = [1 << 30, 1 << 16, 1 << 20][(seed / 3 % 3) as usize];
        let mut buffer = TransactionBuffer::new(limit, background(seed));
        // Two credentials for one project.
        let connections = [connection(), connection()];
        let table = Arc::new(Table::of_columns(Resource::get("assets").unwrap(), &columns).unwrap());
        let mut writers: Vec<(usize, Writer)> = Vec::new();
        for connection in &connections[..1 + (seed % 2) as usize] {
            for (mode, (on_conflict, listed)) in modes.iter().enumerate() {
                let writer = Writer::new(table.clone(), connection.clone(), *on_conflict, *listed);
                writers.push((mode, writer.unwrap()));
            }
        }
        let model = random_transaction(
            &mut random,
            3000,
            &mut buffer,
            |buffer, model: &mut BTreeMap<String, Option<Item>>, subtransaction, random| {
                let key = format!("k{}", random.below(keys));
                let text = random.below(1000).to_string();
                let (mode, writer) = &mut writers[random.below(5 + 5 * (seed % 2)) as usize];
                let given = [random.below(4) > 0, random.below(4) > 0];
                let cell = |at: usize| if given[at] { Cell::Text(&text) } else { Cell::Null };
                let row = [Cell::Text(&key), cell(0), cell(1)];
                let target = Target { buffer, subtransaction, spill: &mut spill };
                let item = model.entry(key.clone()).or_insert_with(|| before(&key));
                if random.below(5) == 0 {
                    writer.delete(target, &row).unwrap();
                    *item = None;
                    return;
                }
                writer.insert(target, &row).unwrap();
                let (on_conflict, listed) = modes[*mode];
                if item.is_some() && on_conflict == Ignore {
                    return;
                }
                let listed = listed.filter(|_| item.is_some()).unwrap_or(&[1, 2]);
                let item = item.get_or_insert_default();
                for at in listed.iter().filter(|at| given[**at - 1]) {
                    item.insert(columns[*at].to_owned(), format!("\"{text}\""));
                }
            },
        );
        let stored = deliver_modes(buffer.finish().unwrap(), &mut spill);
        // What a savepoint has taken back was not written.
        let written: BTreeMap<String, Option<Item>> = model
            .into_iter()
            .filter(|(key, item)| stored.contains_key(key) || *item != before(key))
            .collect();
        assert_same(&stored, &written, seed);
    }
}

#[test]
fn points_end_as_written_whatever_the_savepoints() {
    let connection = connection();
    for seed in 1..=40 {
        let mut random = Random(seed * 0x9E37_79B9);
        let mut spill = MemorySpill::default();
        let moments = [20, 5_000, 1_000_000][(seed % 3) as usize];
        let limit = [1 << 30, 1 << 16][(seed % 2) as usize];
        let mut buffer = TransactionBuffer::new(limit, background(seed));
        let mut points = writer("datapoints", &["external_id", "timestamp", "value"], &connection);
        let model = random_transaction(
            &mut random,
            6000,
            &mut buffer,
            |buffer, model: &mut BTreeMap<(String, i64), u64>, subtransaction, random| {
                let series = format!("s{}", random.below(4));
                let moment = random.below(moments) as i64;
                let value = random.below(1 << 50);
                let row = [Cell::Text(&series), Cell::Timestamp(moment * 1000), Cell::Float(value as f64)];
                let target = Target { buffer, subtransaction, spill: &mut spill };
                if random.below(10) == 0 {
                    let end = moment + 1 + random.below(moments / 10) as i64;
                    let reference = SeriesRef::ExternalId(series.as_str().into());
                    let range = (moment + EPOCH_MILLIS, end + EPOCH_MILLIS);
                    points.delete_range(target, &reference, range).unwrap();
                    remove(model, &series, moment..end);
                    return;
                }
                points.insert(target, &row).unwrap();
                model.insert((series, moment), value);
            },
        );
        let mut stored: BTreeMap<(String, i64), u64> = BTreeMap::new();
        for delivery in buffer.finish().unwrap() {
            let mut chunks = delivery.chunks;
            chunks.sort_by_key(|chunk| chunk.wave);
            let waves: Vec<(usize, usize, Operation)> =
                chunks.iter().map(|chunk| (chunk.wave, chunk.rows, chunk.header.mode.operation)).collect();
            let mut seen: HashSet<(usize, String, i64)> = HashSet::new();
            for (chunk, (wave, rows, operation)) in chunks.into_iter().zip(waves) {
                let body = chunk.into_body(&mut spill).unwrap();
                if operation == Operation::Delete {
                    let request: serde_json::Value = serde_json::from_slice(&body.bytes).unwrap();
                    for item in request["items"].as_array().unwrap() {
                        let (first, end) = (&item["inclusiveBegin"], &item["exclusiveEnd"]);
                        let range =
                            first.as_i64().unwrap() - EPOCH_MILLIS..end.as_i64().unwrap() - EPOCH_MILLIS;
                        remove(&mut stored, item["externalId"].as_str().unwrap(), range);
                    }
                    continue;
                }
                let request = wire::InsertionRequest::decode(&*body.bytes).unwrap();
                let mut sent = 0;
                for item in request.items {
                    let Some(wire::Reference::ExternalId(series)) = item.reference else {
                        panic!("no series")
                    };
                    let Some(wire::Points::Numeric(points)) = item.points else { panic!("no points") };
                    for point in points.datapoints {
                        sent += 1;
                        assert!(
                            seen.insert((wave, series.clone(), point.timestamp)),
                            "seed {seed}: twice in a wave"
                        );
                        stored.insert((series.clone(), point.timestamp - EPOCH_MILLIS), point.value as u64);
                    }
                }
                assert_eq!(sent, rows);
            }
        }
        assert_same(&stored, &model, seed);
    }
}

#[test]
fn requests_keep_to_the_limits() {
    let connection = connection();
    let mut spill = MemorySpill::default();
    let mut buffer = TransactionBuffer::new(1 << 30, &Threads);
    let mut events = writer("events", &["external_id", "description", "metadata"], &connection);
    let mut points = writer("datapoints", &["external_id", "timestamp", "value"], &connection);
    let metadata = format!("{{\"k\": \"{}\"}}", "x".repeat(20_000));
    for at in 0..2500 {
        let key = format!("e{at}");
        let row = [Cell::Text(&key), Cell::Null, if at < 500 { Cell::Json(&metadata) } else { Cell::Null }];
        events.insert(Target { buffer: &mut buffer, subtransaction: 1, spill: &mut spill }, &row).unwrap();
    }
    for at in 0..250_000 {
        let series = format!("s{}", at % 15_000);
        points
            .insert(
                Target { buffer: &mut buffer, subtransaction: 1, spill: &mut spill },
                &[Cell::Text(&series), Cell::Timestamp(at * 1000), Cell::Int(at)],
            )
            .unwrap();
    }
    let deliveries = buffer.finish().unwrap();
    let sizes = |name: &str| -> Vec<usize> {
        let delivery = deliveries.iter().find(|delivery| delivery.destination.resource.name == name).unwrap();
        delivery.chunks.iter().map(|chunk| chunk.rows).collect()
    };
    let events = sizes("events");
    assert_eq!(events.iter().sum::<usize>(), 2500);
    assert!(events.len() > 3 && events.iter().all(|rows| *rows <= 1000));
    let points = sizes("datapoints");
    assert_eq!(points.iter().sum::<usize>(), 250_000);
    assert!(points.iter().all(|rows| *rows <= 100_000));
    for delivery in deliveries {
        for chunk in delivery.chunks {
            let body = chunk.into_body(&mut spill).unwrap();
            assert!(body.bytes.len() <= 9 << 20);
            if delivery.destination.resource.name == "datapoints" {
                assert!(wire::InsertionRequest::decode(&*body.bytes).unwrap().items.len() <= 10_000);
            }
        }
    }
}

#[test]
fn memory_stays_within_the_limit() {
    let connection = connection();
    let mut spill = MemorySpill::default();
    let limit = 8 << 20;
    let mut buffer = TransactionBuffer::new(limit, &Threads);
    let mut points = writer("datapoints", &["external_id", "timestamp", "value"], &connection);
    let mut most = 0;
    for at in 0..1_500_000_i64 {
        let series = format!("s{}", at % 100);
        points
            .insert(
                Target { buffer: &mut buffer, subtransaction: 1, spill: &mut spill },
                &[Cell::Text(&series), Cell::Timestamp(at * 1000), Cell::Int(at)],
            )
            .unwrap();
        most = most.max(buffer.memory());
    }
    assert!(most <= limit, "{most} bytes");
    assert!(spill.bytes.len() > 10 << 20);
}

#[test]
fn a_refused_row_changes_nothing() {
    let connection = connection();
    let mut spill = MemorySpill::default();
    let mut buffer = TransactionBuffer::new(1 << 30, &Threads);
    let mut assets = writer("assets", &["external_id", "name"], &connection);
    let mut points = writer("datapoints", &["external_id", "timestamp", "value"], &connection);
    let long = "x".repeat(141);
    assert!(assets
        .insert(
            Target { buffer: &mut buffer, subtransaction: 1, spill: &mut spill },
            &[Cell::Text("a"), Cell::Text(&long)]
        )
        .is_err());
    let row = [Cell::Text("s"), Cell::Timestamp(0), Cell::Float(f64::NAN)];
    assert!(points
        .insert(Target { buffer: &mut buffer, subtransaction: 1, spill: &mut spill }, &row)
        .is_err());
    assert!(buffer.is_empty());
    assert!(buffer.finish().unwrap().is_empty());
}

#[test]
fn a_request_that_could_not_be_made_fails_the_transaction_whatever_happens_in_between() {
    let connection = connection();
    let mut spill = MemorySpill::default();
    for background in [&Threads as &'static dyn Background, &Foreground] {
        let mut buffer = TransactionBuffer::new(1 << 30, background);
        let columns = ["external_id", "timestamp", "value"];
        let table = Arc::new(Table::of_columns(Resource::get("datapoints").unwrap(), &columns).unwrap());
        let mut points = Writer::new(table, connection.clone(), OnConflict::Error, None).unwrap();
        // One moment twice, in a request that is full.
        for at in 0..100_001 {
            let row = [Cell::Text("s"), Cell::Timestamp(at.max(1) * 1000), Cell::Int(at)];
            points
                .insert(Target { buffer: &mut buffer, subtransaction: 1, spill: &mut spill }, &row)
                .unwrap();
        }
        let resource = Resource::get("datapoints").unwrap();
        let refused = buffer.own_points(&connection, resource, None, &mut spill).unwrap_err();
        // A savepoint was rolled back, and the transaction goes on.
        buffer.rollback(2);
        for error in [refused, buffer.finish().unwrap_err()] {
            assert_eq!(error.kind, Kind::Duplicate);
            assert!(error.to_string().contains("\"s\" at 2000-01-01T00:00:00.001"), "{error:?}");
        }
    }
}

/// Never does anything.
#[derive(Debug)]
struct Nowhere;

impl Background for Nowhere {
    fn start(&self, _work: Box<dyn FnOnce() + Send>) {}
}

#[test]
fn work_that_is_not_done_is_an_error() {
    let connection = connection();
    let mut spill = MemorySpill::default();
    let mut buffer = TransactionBuffer::new(1 << 30, &Nowhere);
    let mut points = writer("datapoints", &["external_id", "timestamp", "value"], &connection);
    for at in 0..100_001 {
        let row = [Cell::Text("s"), Cell::Timestamp(at * 1000), Cell::Int(at)];
        points.insert(Target { buffer: &mut buffer, subtransaction: 1, spill: &mut spill }, &row).unwrap();
    }
    assert_eq!(buffer.finish().unwrap_err().kind, Kind::Internal);
}

/// The encoded rows of each key in their order, and those without one.
fn by_key(items: &[PendingItem]) -> BTreeMap<Vec<u8>, Vec<String>> {
    let mut found: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for item in items {
        let key = Some(Fragment::of(&item.fragment).first_member()).filter(|_| item.kind == KeyKind::Key);
        let text = String::from_utf8_lossy(&item.fragment).into_owned();
        found.entry(key.unwrap_or_default().to_vec()).or_default().push(format!("{:?} {text}", item.mode));
    }
    found.values_mut().take(1).for_each(|rows| rows.sort());
    found
}

#[test]
fn what_is_asked_for_part_by_part_is_all_that_is_pending() {
    let connection = connection();
    for seed in 1..300 {
        let mut random = Random(seed);
        let mut spill = MemorySpill::default();
        let mut buffer = TransactionBuffer::new(1000 << random.below(8), background(seed));
        let mut events = writer("events", &["external_id", "type"], &connection);
        let mut names: Vec<String> = (0..40).map(|at| format!("k\"{at}")).collect();
        names.push("\u{1}\\ü".into());
        for at in 0..200 {
            let name = &names[random.below(names.len() as u64) as usize];
            let text = format!("{at:>60}");
            let subtransaction = 1 + at / 60;
            let target = Target { buffer: &mut buffer, subtransaction, spill: &mut spill };
            match random.below(8) {
                0 => events.delete(target, &[Cell::Text(name), Cell::Null]).unwrap(),
                1 => events.insert(target, &[Cell::Null, Cell::Text(&text)]).unwrap(),
                _ => events.insert(target, &[Cell::Text(name), Cell::Text(&text)]).unwrap(),
            }
        }
        let resource = Resource::get("events").unwrap();
        let before = match seed % 3 {
            0 => Some(buffer.moment(&connection, resource).unwrap()),
            _ => None,
        };
        assert!(buffer.is_by_key(&connection, resource));
        let all = by_key(&buffer.pending(&connection, resource, None, before, &mut spill).unwrap().items);
        let mut own = buffer.own_rows(&connection, resource, (None, None), before, &mut spill).unwrap();
        // What comes later is not seen, and what was there stays where it can be found.
        for (at, name) in names.iter().enumerate() {
            let target = Target { buffer: &mut buffer, subtransaction: 9, spill: &mut spill };
            let text = format!("later {at}");
            events.insert(target, &[Cell::Text(name), Cell::Text(&text)]).unwrap();
        }
        match seed % 2 {
            0 => buffer.release(9, 4),
            _ => buffer.rollback(9),
        }
        let mut items = Vec::new();
        for _ in 0..3 {
            let mut keys: Vec<Key> = names.iter().map(|name| Key::of_external_id(name)).collect();
            keys.retain(|key| all.contains_key(key.as_bytes()) && random.below(4) == 0);
            keys.retain(|key| !by_key(&items).contains_key(key.as_bytes()));
            items.extend(
                buffer
                    .answer(&mut own, WantedRows::OfKeys { place: None, keys, anew: false }, &mut spill)
                    .unwrap(),
            );
        }
        loop {
            let more = buffer.answer(&mut own, WantedRows::Rest { place: None }, &mut spill).unwrap();
            if more.is_empty() {
                break;
            }
            items.extend(more);
        }
        assert_eq!(by_key(&items), all, "seed {seed}");
    }
}

/// The points of each series, by moment.
type Points = BTreeMap<(String, i64), Option<f64>>;

/// What CDF has of a stretch, changed by writes that are told of it.
fn apply_writes(stored: &mut Points, series: &str, writes: &[PointWrite], (first, end): Stretch) {
    for write in writes {
        match write {
            PointWrite::Delete((from, to)) => {
                let within = (series.to_owned(), *from.max(&first))..(series.to_owned(), *to.min(&end));
                if within.start < within.end {
                    let keys: Vec<_> = stored.range(within).map(|(key, _)| key.clone()).collect();
                    keys.iter().for_each(|key| {
                        stored.remove(key);
                    });
                }
            }
            PointWrite::Put { points: wire::Points::Numeric(points), keeps } => {
                for point in &points.datapoints {
                    assert!((first..end).contains(&point.timestamp), "a point beyond what was asked for");
                    let key = (series.to_owned(), point.timestamp);
                    if !(*keeps && stored.contains_key(&key)) {
                        stored.insert(key, Some(point.value));
                    }
                }
            }
            PointWrite::Put { .. } => panic!("no numbers"),
        }
    }
}

#[test]
fn points_that_are_asked_for_stretch_by_stretch_are_all_that_were_written() {
    const MOMENTS: u64 = 400;
    let connection = connection();
    let columns = ["external_id", "timestamp", "value"];
    let resource = Resource::get("datapoints").unwrap();
    for seed in 1..80 {
        let mut random = Random(seed);
        let mut spill = MemorySpill::default();
        let mut buffer = TransactionBuffer::new(1000 << random.below(8), background(seed));
        let mut updates = writer("datapoints", &columns, &connection);
        let table = Arc::new(Table::of_columns(resource, &columns).unwrap());
        let mut keeps = Writer::new(table, connection.clone(), OnConflict::Ignore, None).unwrap();
        // What CDF has already, of the first of the series.
        let mut model: Points = (0..50).map(|at| (("s0".to_owned(), at * 7), None)).collect();
        let mut stored = model.clone();
        let mut saved = model.clone();
        for at in 0..300 {
            let series = format!("s{}", random.below(4));
            let first = random.below(MOMENTS) as i64;
            let end = first + 1 + random.below(20) as i64;
            let subtransaction = if at < 200 { 1 } else { 2 };
            if at == 200 {
                saved = model.clone();
            }
            let kind = random.below(8);
            if kind == 0 {
                let target = Target { buffer: &mut buffer, subtransaction, spill: &mut spill };
                let name = crate::cdf::encode::points::SeriesRef::ExternalId((&*series).into());
                updates.delete_range(target, &name, (first, end)).unwrap();
                apply_writes(&mut model, &series, &[PointWrite::Delete((first, end))], (0, i64::MAX));
                continue;
            }
            for moment in first..end {
                let target = Target { buffer: &mut buffer, subtransaction, spill: &mut spill };
                let row = [
                    Cell::Text(&series),
                    Cell::Timestamp((moment - EPOCH_MILLIS) * 1000),
                    Cell::Float(f64::from(at)),
                ];
                let key = (series.clone(), moment);
                match kind {
                    1 => {
                        keeps.insert(target, &row).unwrap();
                        model.entry(key).or_insert(Some(f64::from(at)));
                    }
                    _ => {
                        updates.insert(target, &row).unwrap();
                        model.insert(key, Some(f64::from(at)));
                    }
                }
            }
        }
        let before = (seed % 3 == 0).then(|| buffer.moment(&connection, resource).unwrap());
        let mut own = buffer.own_points(&connection, resource, before, &mut spill).unwrap();
        if seed % 4 == 1 {
            buffer.rollback(2);
            // What was open is copied, so that a reader goes on as it began: it is of the first part that is closed only.
            own = buffer.own_points(&connection, resource, before, &mut spill).unwrap();
            model = saved;
        }
        let room = |random: &mut Random| own_points::PointRoom {
            points: 1 + random.below(90) as usize,
            bytes: 1 << 20,
        };
        // Two series that CDF has, in two stretches each.
        let middle = random.below(MOMENTS) as i64;
        let mut wanted: Vec<(String, Stretch)> = Vec::new();
        for series in ["s0", "s2"] {
            wanted.extend([(series.to_owned(), (0, middle)), (series.to_owned(), (middle, i64::MAX))]);
        }
        while !wanted.is_empty() {
            let of = |(series, within): &(String, Stretch)| {
                (vec![Identity::Id(1), Identity::ExternalId(series.clone())], *within)
            };
            let asked = WantedPoints::Of(wanted.iter().map(of).collect());
            let limit = room(&mut random);
            let told = buffer.answer_points_within(&mut own, asked, &mut spill, limit).unwrap();
            assert_eq!(told.len(), wanted.len());
            assert!(told[0].end > wanted[0].1 .0 || wanted[0].1 .0 >= wanted[0].1 .1, "no progress");
            for ((series, within), told) in std::mem::take(&mut wanted).into_iter().zip(told) {
                apply_writes(&mut stored, &series, &told.writes, (within.0, told.end));
                if told.end < within.1 {
                    wanted.push((series, (told.end, within.1)));
                }
            }
        }
        // The others are not known to CDF.
        let mut begun: BTreeMap<String, i64> = BTreeMap::new();
        loop {
            let asked = WantedPoints::Rest { only: None, within: (0, i64::MAX) };
            let limit = room(&mut random);
            let told = buffer.answer_points_within(&mut own, asked, &mut spill, limit).unwrap();
            if told.is_empty() {
                break;
            }
            for series in told {
                let Some(Identity::ExternalId(name)) = series.name else { panic!("no name") };
                assert!(name == "s1" || name == "s3", "{name} was asked for");
                let first = begun.insert(name.clone(), series.end).unwrap_or(0);
                apply_writes(&mut stored, &name, &series.writes, (first, series.end));
            }
        }
        assert_same(&stored, &model, seed);
    }
}
