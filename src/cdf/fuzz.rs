//! Random input for the parsers of what others send. Their tests check that no input makes a parser panic, and that a parser
//! accepts only what a slower reader of the same format accepts. `make fuzz` runs these tests for longer.
//!
//! The input is JSON of any form, the files of `tests/fuzz/corpus`, and both of these damaged: cut, doubled, or with bytes
//! replaced.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::sample::Index;
use serde::de::IgnoredAny;

/// What servers really send, and what once went wrong.
static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    let entries = std::fs::read_dir(&directory).expect("the corpus is part of the repository");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a readable entry").path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).expect("a readable file")).collect()
});

/// JSON text of any form. Names are those that the parsers look for, and some others.
pub fn json_text() -> impl Strategy<Value = String> {
    let names = prop::sample::select(vec![
        "items",
        "id",
        "externalId",
        "error",
        "code",
        "message",
        "missing",
        "duplicated",
        "nextCursor",
        "values",
        "rowNumber",
        "container",
        "list",
        "version",
        "access_token",
        "expires_in",
        "token_type",
        "rows",
        "columns",
        "key",
        "projects",
        "datapoints",
        "instanceId",
        "space",
        "type",
        "geometry",
        "coordinates",
        "properties",
        "ü\\u0041\\ud800",
        "",
    ]);
    let text = prop_oneof![
        "[ -~]{0,12}".prop_map(|text| format!("\"{}\"", text.replace(['"', '\\'], ""))),
        Just("\"\\ud83d\\ude00\\n\\\"\\\\\"".to_owned()),
        Just("\"\\udc00\"".to_owned()),
        Just("\"é\u{1f6e2}\"".to_owned()),
        Just("\"bearer\"".to_owned()),
        Just("\"Feature\"".to_owned()),
        Just("\"Point\"".to_owned()),
    ];
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        Just("1e999".to_owned()),
        Just("-0.1E-7".to_owned()),
        Just("89314404000123456789.50".to_owned()),
    ];
    let leaf = prop_oneof![
        3 => text,
        2 => number,
        1 => prop::sample::select(vec!["null", "true", "false"]).prop_map(str::to_owned),
    ];
    let blank = prop::sample::select(vec!["", "", "", " ", "\r\n\t"]);
    let value = leaf.prop_recursive(6, 64, 6, move |inner| {
        let members = prop::collection::vec((names.clone(), inner.clone(), blank.clone()), 0..6);
        let object = members.prop_map(|members| {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value, blank)| format!("{blank}\"{name}\"{blank}:{value}{blank}"))
                .collect();
            format!("{{{}}}", members.join(","))
        });
        let elements = prop::collection::vec(inner, 0..6).prop_map(|all| format!("[{}]", all.join(", ")));
        prop_oneof![2 => object, 1 => elements]
    });
    // Deeper than any stack that parses recursively.
    let deep = (1usize..2000).prop_map(|levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels)));
    prop_oneof![20 => value, 1 => deep]
}

/// One thing that may happen to bytes on their way.
#[derive(Debug, Clone)]
enum Damage {
    Cut(Index),
    Replace(Index, u8),
    Insert(Index, Vec<u8>),
    Repeat(Index, Index),
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let room = bytes.len() + 1;
        match self {
            Damage::Cut(at) => bytes.truncate(at.index(room)),
            Damage::Replace(at, byte) => {
                let at = at.index(room);
                if let Some(place) = bytes.get_mut(at) {
                    *place = *byte;
                }
            }
            Damage::Insert(at, more) => {
                let at = at.index(room);
                bytes.splice(at..at, more.iter().copied());
            }
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(room), to.index(room));
                bytes.extend_from_within(from.min(to)..from.max(to));
            }
        }
    }
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let one = prop_oneof![
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..4))
            .prop_map(|(at, more)| Damage::Insert(at, more)),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Damage::Repeat(from, to)),
    ];
    prop::collection::vec(one, 0..3)
}

/// Bytes as a server may send them.
pub fn sent() -> impl Strategy<Value = Vec<u8>> {
    let whole = prop_oneof![
        3 => json_text().prop_map(String::into_bytes),
        2 => any::<Index>().prop_map(|at| at.get(&CORPUS).clone()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ];
    (whole, damage()).prop_map(|(mut bytes, damage)| {
        damage.iter().for_each(|damage| damage.apply(&mut bytes));
        bytes
    })
}

/// For each target: seeds are printed when a test fails, and no file is written.
pub fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Whether bytes are JSON.
pub fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(bytes).is_ok()
}
