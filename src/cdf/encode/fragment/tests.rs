//! Fragments are read as they were written.

use super::*;
use crate::cdf::encode::json::{self, Properties};
use crate::cdf::encode::EncodedRow;
use crate::cdf::error::{Error, Identity};
use crate::cdf::resource::{InstanceEnd, Resource};

#[test]
fn a_member_that_is_a_key_is_begun_by_its_name() {
    for member in KeyMember::ALL {
        assert_eq!(member.beginning(), format!("{{\"{}\":", member.name()).as_bytes());
        assert_eq!(KeyMember::of(member.name()), Some(member));
    }
    assert_eq!(KeyMember::of("name"), None);
}

#[test]
fn a_key_is_written_and_found_in_one_way() {
    for name in ["a", "", "q\"\\", "\u{1f6e2}\n", "\"}", ":"] {
        let mut out = b"before".to_vec();
        let opening = Opening::new(&mut out, KeyMember::ExternalId);
        json::text(&mut out, name);
        let encoded = opening.keyed(&out);
        begin_columns(&mut out);
        out.extend_from_slice(b"{}");
        end(&mut out);
        let (row, wanted) = (Fragment::of(&out["before".len()..]), Key::of_external_id(name));
        assert_eq!(row.key_of(&encoded), wanted.as_bytes());
        assert_eq!(row.first_member(), wanted.as_bytes());
        assert_eq!(row.external_id(), Some(&wanted.as_bytes()["{\"externalId\":".len()..]));
        assert_eq!(wanted.hash_of_value(), encoded.hash);
        let parsed = row.parse().unwrap();
        assert_eq!(parsed.identity(), Some(Identity::ExternalId(name.into())));
        assert_eq!(parsed.key_object(), key_object(wanted.as_bytes()));
    }
}

#[test]
fn a_row_of_a_sequence_has_a_key_of_two_members() {
    let mut out = Vec::new();
    let opening = Opening::new(&mut out, KeyMember::Id);
    json::write(&mut out, &7);
    let encoded = opening.row_number(&mut out, 3).keyed(&out);
    begin_columns(&mut out);
    out.extend_from_slice(b"{\"a\":1}");
    end(&mut out);
    let (row, wanted) = (Fragment::of(&out), Key::of_id(7).with_row_number(3));
    assert_eq!(row.key_of(&encoded), wanted.as_bytes());
    assert_eq!(row.key(Resource::get("sequence_rows").unwrap()), wanted.as_bytes());
    assert_eq!(row.key(Resource::get("events").unwrap()), Key::of_id(7).as_bytes());
    let parsed = row.parse().unwrap();
    assert_eq!((parsed.identity(), parsed.number()), (Some(Identity::Id(7)), Some("3")));
    assert_eq!(parsed.columns(false).unwrap().0.len(), 1);
}

#[test]
fn what_an_existing_item_gets_stands_apart() {
    let mut row = Vec::new();
    let opening = Opening::new(&mut row, KeyMember::Instance);
    row.extend_from_slice(br#"["s","x"]"#);
    assert_eq!(opening.keyed(&row).prefix, row.len());
    assert_eq!(row, Key::of_instance("s", "x").as_bytes());
    begin_columns(&mut row);
    row.extend_from_slice(b"{}");
    begin_existing(&mut row);
    only_columns(&mut row, |out| {
        out.extend_from_slice(b"{\"a\":1}");
        Ok::<_, Error>(())
    })
    .unwrap();
    end(&mut row);
    let parsed = Fragment::of(&row).parse().unwrap();
    let instance = Identity::Instance { space: "s".into(), external_id: "x".into() };
    assert_eq!(parsed.identity(), Some(instance));
    assert_eq!(
        parsed.members().map(|(name, _)| name).collect::<Vec<_>>(),
        ["(space, external_id)", "columns"]
    );
    assert_eq!(parsed.columns(false).unwrap().0.len(), 0);
    assert_eq!(parsed.columns(true).unwrap().0.len(), 1);

    let mut same = Vec::new();
    let members = |properties: &Properties<'_>, out: &mut Vec<u8>| {
        properties.0.iter().for_each(|(name, value)| member(out, name, value.get()));
        Ok(())
    };
    parsed.rewrite(&mut same, members).unwrap();
    assert_eq!(same, row);
    same.clear();
    parsed.write_new(&mut same, |value| value == "{}");
    assert_eq!(same, key_object(Key::of_instance("s", "x").as_bytes()));
}

#[test]
fn a_row_without_a_key_has_properties_only() {
    let parsed = Fragment::of(br#"{"name":"a","id":5}"#).parse().unwrap();
    assert_eq!((parsed.key().is_some(), parsed.identity()), (false, None));
    assert_eq!(parsed.properties(true).0.len(), 2);
    assert_eq!(parsed.key_object(), b"{}");
    assert!(Fragment::of(b"{}").parse().unwrap().key().is_none());
}

#[test]
fn a_new_external_id_and_a_parent_are_found() {
    let assets = Resource::get("assets").unwrap();
    let id = Key::of_id(5);
    let encoded = EncodedRow { prefix: id.as_bytes().len(), ..EncodedRow::unkeyed() };
    let renamed = br#"{"id":5,"externalId":"new","parentExternalId":"p"}"#;
    assert!(Fragment::of(renamed).may_rename(&encoded));
    assert!(!Fragment::of(br#"{"id":5,"name":"n"}"#).may_rename(&encoded));
    let parent = Some(Key::of_external_id("p").hash_of_value());
    assert_eq!(Fragment::of(renamed).parent_hash(assets).unwrap(), parent);
    assert_eq!(Fragment::of(br#"{"id":5}"#).parent_hash(assets).unwrap(), None);
    assert_eq!(Fragment::of(renamed).parent_hash(Resource::get("events").unwrap()).unwrap(), None);
}

#[test]
fn ends_of_instances_are_no_properties() {
    for end in InstanceEnd::ALL {
        let head = String::from_utf8(head_of_end(end)).unwrap();
        let name: &str = head.trim_start_matches(",\"").trim_end_matches("\":");
        assert_eq!(end_of(name), Some(end));
        assert_eq!(end_of(end.property()), None);
    }
}
