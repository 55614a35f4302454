//! Arranges assets in an order that CDF takes: parents before their children.
//!
//! CDF resolves `parentExternalId` only among the items of the same request and those that exist already. A parent that
//! comes in a later request, or in one at the same time, is unknown.

use std::rc::Rc;

use hashbrown::HashMap;

use crate::cdf::buffer::{Chunk, Header, Spill, BODY_BYTES};
use crate::cdf::encode::KeyKind;
use crate::cdf::error::{list_names, Error, Kind};
use crate::cdf::hash::IdentityHash;
use crate::cdf::resource::assets::ASSETS;
use crate::cdf::resource::Role;
use crate::cdf::table::Operation;

/// One asset: where it is, and which assets it must come after.
#[derive(Debug, Clone, Copy)]
struct Node {
    chunk: u32,
    item: u32,
    bytes: u32,
    /// The earlier write of the same key.
    previous: Option<u32>,
    /// The first write of its parent, if this transaction writes the parent.
    parent: Option<u32>,
}

/// The nodes of one key: its first write, and its last so far. They are small because a map of all keys does not fit
/// into the processor's caches.
#[derive(Debug, Clone, Copy)]
struct Writes {
    first: u32,
    last: u32,
}

/// Stands for no node.
const NONE: u32 = u32::MAX;

fn some(node: u32) -> Option<u32> {
    (node != NONE).then_some(node)
}

/// Arranges the chunks of destinations that share assets so that every parent is in an earlier wave, or earlier in the
/// same request. Chunks keep their destination.
///
/// # Errors
/// `InvalidValue` for a cycle; its members are named.
pub fn arrange(
    destinations: Vec<Vec<Chunk>>,
    per_request: usize,
    spill: &mut dyn Spill,
) -> Result<Vec<Vec<Chunk>>, Error> {
    if !destinations.iter().flatten().any(|chunk| chunk.header.has_parents) {
        return Ok(destinations);
    }
    let sizes: Vec<usize> = destinations.iter().map(Vec::len).collect();
    let owners: Vec<usize> =
        sizes.iter().enumerate().flat_map(|(at, size)| std::iter::repeat_n(at, *size)).collect();
    let mut chunks: Vec<Chunk> = destinations.into_iter().flatten().collect();
    let nodes = collect(&chunks, spill)?;
    let steps = levels(&nodes).map_err(|cycle| describe(cycle, &nodes, &chunks, spill))?;
    if steps.iter().all(|step| *step == 0) {
        return Ok(sizes.into_iter().map(|size| chunks.drain(..size).collect()).collect());
    }
    let mut arranged: Vec<Vec<Chunk>> = sizes.iter().map(|_| Vec::new()).collect();
    for (owner, chunk) in rebuild(chunks, &owners, &nodes, &steps, per_request) {
        arranged[owner].push(chunk);
    }
    Ok(arranged)
}

fn collect(chunks: &[Chunk], spill: &mut dyn Spill) -> Result<Vec<Node>, Error> {
    let mut order: Vec<usize> = (0..chunks.len()).collect();
    order.sort_by_key(|at| chunks[*at].wave);
    let count = chunks.iter().map(|chunk| chunk.rows).sum();
    let mut nodes = Vec::with_capacity(count);
    let mut hashes = Vec::with_capacity(count);
    let mut writes: HashMap<u64, Writes, IdentityHash> =
        HashMap::with_capacity_and_hasher(count, IdentityHash::default());
    for at in order {
        let body = chunks[at].read(spill)?;
        for (item, (key, parent)) in body.family.iter().enumerate() {
            let node = nodes.len() as u32;
            let mut previous = None;
            if chunks[at].header.kind != KeyKind::None {
                let writes = writes.entry(*key).or_insert(Writes { first: NONE, last: NONE });
                // A child must come after its parent is created, not after it is deleted.
                if chunks[at].header.mode.operation != Operation::Delete && writes.first == NONE {
                    writes.first = node;
                }
                previous = some(std::mem::replace(&mut writes.last, node));
            }
            let (start, end) = body.items[item];
            nodes.push(Node {
                chunk: at as u32,
                item: item as u32,
                bytes: end - start,
                previous,
                parent: None,
            });
            hashes.push(*parent);
        }
    }
    for (node, parent) in nodes.iter_mut().zip(hashes) {
        if parent != 0 {
            node.parent = writes.get(&parent).and_then(|writes| some(writes.first));
        }
    }
    Ok(nodes)
}

/// Returns the step of each node: one after its parent's step and one after the earlier write of its key. Or the nodes
/// of a cycle.
fn levels(nodes: &[Node]) -> Result<Vec<u32>, Vec<u32>> {
    const UNKNOWN: u32 = u32::MAX;
    const ON_PATH: u32 = u32::MAX - 1;
    let mut steps = vec![UNKNOWN; nodes.len()];
    let mut path = Vec::new();
    for start in 0..nodes.len() as u32 {
        path.push(start);
        while let Some(&at) = path.last() {
            let node = nodes[at as usize];
            let before = [node.parent, node.previous];
            if steps[at as usize] == UNKNOWN || steps[at as usize] == ON_PATH {
                steps[at as usize] = ON_PATH;
                let open = before.into_iter().flatten().find(|other| steps[*other as usize] >= ON_PATH);
                if let Some(other) = open {
                    if steps[other as usize] == ON_PATH {
                        let from = path.iter().position(|on_path| *on_path == other).unwrap_or(0);
                        return Err(path.split_off(from));
                    }
                    path.push(other);
                    continue;
                }
                let step = before.into_iter().flatten().map(|other| steps[other as usize] + 1).max();
                steps[at as usize] = step.unwrap_or(0);
            }
            path.pop();
        }
    }
    Ok(steps)
}

fn describe(cycle: Vec<u32>, nodes: &[Node], chunks: &[Chunk], spill: &mut dyn Spill) -> Error {
    let mut names = Vec::new();
    for at in cycle.iter().take(crate::cdf::error::NAMED_ROWS) {
        let node = nodes[*at as usize];
        let body = match chunks[node.chunk as usize].read(spill) {
            Ok(body) => body,
            Err(error) => return error,
        };
        let name = body.fragment(node.item as usize).external_id().unwrap_or(b"?");
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    let naming = cycle.first().map(|at| chunks[nodes[*at as usize].chunk as usize].header.mode.naming);
    let parent = ASSETS.named_as(Role::Parent, naming.unwrap_or_default());
    let mut error = Error::new(Kind::InvalidValue, format!("{parent} forms a cycle"))
        .about(ASSETS.name)
        .detail(format!(
            "Each is below the next, the last below the first: {}.",
            list_names(names.iter(), cycle.len())
        ))
        .refusing(names, cycle.len())
        .hint("An asset cannot be below itself. Correct the parents of these rows.");
    error.accepted = Some(("nothing accepted".into(), "Nothing was sent to CDF.".into()));
    error
}

/// A request that is being assembled.
#[derive(Debug, Default)]
struct Group {
    nodes: Vec<u32>,
    bytes: usize,
}

/// Arranges the nodes of chunks.
struct Arrangement<'c> {
    chunks: &'c [Chunk],
    /// The destination of each chunk.
    owners: &'c [usize],
    nodes: &'c [Node],
    per_request: usize,
}

impl Arrangement<'_> {
    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn chunk(&self, at: u32) -> &Chunk {
        &self.chunks[self.node(at).chunk as usize]
    }

    /// Returns the place of a node among all rows: its chunk, and its position there.
    fn place(&self, at: u32) -> (u32, u32) {
        (self.node(at).chunk, self.node(at).item)
    }

    fn owner(&self, at: u32) -> usize {
        self.owners[self.node(at).chunk as usize]
    }

    /// Whether two nodes may share a request.
    fn alike(&self, a: u32, b: u32) -> bool {
        if self.owner(a) != self.owner(b) {
            return false;
        }
        let (a, b) = (self.chunk(a).header, self.chunk(b).header);
        a.mode == b.mode && a.kind == b.kind && a.deferred == b.deferred
    }

    /// Returns the waves of nodes, which are sent one after another. Small steps that follow each other share a
    /// request, parents first; a large step is a wave of its own.
    fn waves(&self, steps: &[u32]) -> Vec<Vec<u32>> {
        let mut by_step = vec![Vec::new(); steps.iter().max().map_or(0, |last| *last as usize + 1)];
        (0..self.nodes.len() as u32).for_each(|at| by_step[steps[at as usize] as usize].push(at));
        let mut waves: Vec<Vec<u32>> = Vec::new();
        let mut current = Group::default();
        for step in by_step {
            let bytes = step.iter().map(|at| self.node(*at).bytes as usize + 1).sum::<usize>();
            let joins = !current.nodes.is_empty()
                && current.nodes.len() + step.len() <= self.per_request
                && current.bytes + bytes <= BODY_BYTES
                && step
                    .iter()
                    .all(|at| self.alike(*at, current.nodes[0]) && self.node(*at).previous.is_none());
            if !joins && !current.nodes.is_empty() {
                waves.push(std::mem::take(&mut current).nodes);
            }
            current.nodes.extend_from_slice(&step);
            current.bytes += bytes;
            let alike = current.nodes.iter().all(|at| self.alike(*at, current.nodes[0]));
            if current.nodes.len() > self.per_request || current.bytes > BODY_BYTES || !alike {
                waves.push(std::mem::take(&mut current).nodes);
            }
        }
        if !current.nodes.is_empty() {
            waves.push(current.nodes);
        }
        waves
    }

    /// Splits a wave into requests.
    fn requests(&self, mut wave: Vec<u32>) -> Vec<Group> {
        // Members that fit one request keep their order, parents first. Others all belong to one step: they are sorted
        // by chunk, so that a chunk in a temporary file is read back once and not for each request.
        if wave.len() > self.per_request {
            wave.sort_by_key(|at| self.place(*at));
        } else {
            wave.sort_by_key(|at| self.owner(*at));
        }
        let mut requests: Vec<Group> = Vec::new();
        for at in wave {
            let bytes = self.node(at).bytes as usize + 1;
            let last = requests.last_mut().filter(|group| {
                self.alike(group.nodes[0], at)
                    && group.nodes.len() < self.per_request
                    && group.bytes + bytes <= BODY_BYTES
            });
            match last {
                Some(group) => {
                    group.nodes.push(at);
                    group.bytes += bytes;
                }
                None => requests.push(Group { nodes: vec![at], bytes }),
            }
        }
        requests
    }
}

/// Makes chunks in the order of the steps, each with its destination. Their bodies are assembled when they are sent,
/// while other requests are running.
fn rebuild(
    chunks: Vec<Chunk>,
    owners: &[usize],
    nodes: &[Node],
    steps: &[u32],
    per_request: usize,
) -> Vec<(usize, Chunk)> {
    let chunks = Rc::new(chunks);
    let arrangement = Arrangement { chunks: &chunks, owners, nodes, per_request };
    let complete = chunks.iter().all(|chunk| chunk.header.complete);
    let mut made = Vec::new();
    for (wave, members) in arrangement.waves(steps).into_iter().enumerate() {
        for group in arrangement.requests(members) {
            let like = arrangement.chunk(group.nodes[0]);
            let places = group.nodes.iter().map(|at| arrangement.place(*at)).collect();
            let header = Header { complete, has_parents: true, ..like.header };
            let chunk = Chunk::picked(wave, header, chunks.clone(), places, group.bytes);
            made.push((arrangement.owner(group.nodes[0]), chunk));
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cdf::buffer::{Body, MemorySpill};
    use crate::cdf::hash::hash_bytes;
    use crate::cdf::table::Mode;

    /// As `super::arrange`, for one destination.
    fn arrange(chunks: Vec<Chunk>, per_request: usize, spill: &mut dyn Spill) -> Result<Vec<Chunk>, Error> {
        super::arrange(vec![chunks], per_request, spill).map(|mut all| all.pop().unwrap())
    }

    fn chunk(wave: usize, assets: &[(&str, Option<&str>)]) -> Chunk {
        let fragments: Vec<Vec<u8>> = assets
            .iter()
            .map(|(key, parent)| match parent {
                Some(parent) => {
                    format!(r#"{{"externalId":"{key}","parentExternalId":"{parent}"}}"#).into_bytes()
                }
                None => format!(r#"{{"externalId":"{key}"}}"#).into_bytes(),
            })
            .collect();
        let mut body = Body::of(&fragments);
        let hash = |name: &str| hash_bytes(format!("\"{name}\"").as_bytes());
        body.family = assets.iter().map(|(key, parent)| (hash(key), parent.map_or(0, hash))).collect();
        let mut chunk = Chunk::new(wave, Header::new(Mode::default(), KeyKind::Key), assets.len(), body);
        chunk.header.has_parents = assets.iter().any(|(_, parent)| parent.is_some());
        chunk
    }

    fn keys(chunk: &Chunk, spill: &mut MemorySpill) -> Vec<String> {
        let body = chunk.read(spill).unwrap();
        (0..body.items.len())
            .map(|at| {
                let name = body.fragment(at).external_id().unwrap();
                String::from_utf8_lossy(name).trim_matches('"').to_owned()
            })
            .collect()
    }

    #[test]
    fn small_hierarchies_are_one_ordered_request() {
        let mut spill = MemorySpill::default();
        let mut chunks =
            vec![chunk(0, &[("c", Some("b")), ("b", Some("a"))]), chunk(0, &[("a", None), ("x", Some("?"))])];
        chunks[0].spill(&mut spill).unwrap();
        let made = arrange(chunks, 1000, &mut spill).unwrap();
        assert_eq!(made.len(), 1);
        let keys = keys(&made[0], &mut spill);
        let place = |key: &str| keys.iter().position(|each| each == key).unwrap();
        assert!(place("a") < place("b") && place("b") < place("c") && keys.len() == 4);
    }

    #[test]
    fn large_steps_are_waves_of_their_own() {
        let mut spill = MemorySpill::default();
        let children: Vec<(String, Option<&str>)> =
            (0..25).map(|at| (format!("k{at}"), Some("root"))).collect();
        let children: Vec<(&str, Option<&str>)> =
            children.iter().map(|(key, parent)| (&**key, *parent)).collect();
        for spilled in [0, 1, 3] {
            let mut chunks =
                vec![chunk(0, &children[..10]), chunk(0, &children[10..]), chunk(0, &[("root", None)])];
            chunks[..spilled].iter_mut().for_each(|chunk| chunk.spill(&mut spill).unwrap());
            let made = arrange(chunks, 10, &mut spill).unwrap();
            assert_eq!(keys(&made[0], &mut spill), ["root"]);
            assert!(made[1..].iter().all(|chunk| chunk.wave == 1 && chunk.rows <= 10));
            let sent: Vec<String> = made[1..].iter().flat_map(|chunk| keys(chunk, &mut spill)).collect();
            assert!(sent.iter().eq(children.iter().map(|(key, _)| key)));
        }
    }

    #[test]
    fn parents_of_another_destination_come_first_and_share_no_request() {
        let mut spill = MemorySpill::default();
        let one = vec![chunk(0, &[("c", Some("b")), ("a", None)])];
        let other = vec![chunk(0, &[("b", Some("a")), ("x", None)])];
        let made = super::arrange(vec![one, other], 1000, &mut spill).unwrap();
        let mut waves: Vec<(usize, Vec<String>)> = Vec::new();
        for chunk in made.iter().flatten() {
            waves.push((chunk.wave, keys(chunk, &mut spill)));
        }
        let wave = |key: &str| waves.iter().find(|(_, keys)| keys.iter().any(|each| each == key)).unwrap().0;
        assert!(wave("a") < wave("b") && wave("b") < wave("c"));
        assert!(made[0].iter().flat_map(|chunk| keys(chunk, &mut spill)).all(|key| key == "c" || key == "a"));
    }

    #[test]
    fn a_later_write_of_an_asset_comes_after_the_first() {
        let mut spill = MemorySpill::default();
        let chunks = vec![chunk(0, &[("a", None), ("b", Some("a"))]), chunk(1, &[("a", None)])];
        let made = arrange(chunks, 1000, &mut spill).unwrap();
        let waves: Vec<_> =
            made.iter().flat_map(|c| keys(c, &mut spill).into_iter().map(|k| (c.wave, k))).collect();
        let a: Vec<usize> = waves.iter().filter(|(_, key)| key == "a").map(|(wave, _)| *wave).collect();
        assert!(a.len() == 2 && a[0] < a[1]);
    }

    #[test]
    fn cycles_are_named() {
        let mut spill = MemorySpill::default();
        let chunks =
            vec![chunk(0, &[("a", Some("b")), ("b", Some("c")), ("c", Some("a")), ("d", Some("a"))])];
        let error = arrange(chunks, 1000, &mut spill).unwrap_err();
        assert_eq!(error.kind, Kind::InvalidValue);
        assert!(["\"a\"", "\"b\"", "\"c\""].iter().all(|name| error.detail[0].contains(name)));
        assert!(!error.detail[0].contains("\"d\""));
        let own = arrange(vec![chunk(0, &[("s", Some("s"))])], 1000, &mut spill).unwrap_err();
        assert!(own.detail[0].contains("\"s\""));
    }
}
