//! JSON objects whose members CDF declares, and lists of them.

use serde_json::value::RawValue;

use super::json::{self, Properties, Refusal};
use crate::cdf::error::Kind;
use crate::cdf::resource::{Member, MemberType};

/// Appends an object of such members, without those that are null.
pub fn object(out: &mut Vec<u8>, document: &str, members: &[Member]) -> Result<(), Refusal> {
    json::check_depth(document)?;
    let object: Properties = serde_json::from_str(document)
        .map_err(|_| invalid(format!("the value must be an object like {}", shape(members))))?;
    write(out, &object, members)
}

/// Appends an array of objects of such members.
pub fn objects(out: &mut Vec<u8>, document: &str, members: &[Member]) -> Result<(), Refusal> {
    json::check_depth(document)?;
    let objects: Vec<Properties> = serde_json::from_str(document)
        .map_err(|_| invalid(format!("the value must be an array of objects like {}", shape(members))))?;
    out.push(b'[');
    for (at, object) in objects.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, object, members).map_err(|(kind, why)| (kind, format!("element {}: {why}", at + 1)))?;
    }
    out.push(b']');
    Ok(())
}

fn write(out: &mut Vec<u8>, object: &Properties<'_>, members: &[Member]) -> Result<(), Refusal> {
    let given: Vec<(&str, &RawValue)> = object
        .0
        .iter()
        .map(|(name, value)| (&**name, *value))
        .filter(|(_, value)| value.get() != "null")
        .collect();
    for (at, (name, value)) in given.iter().enumerate() {
        let Some(member) = members.iter().find(|member| member.name == *name) else {
            return Err(invalid(format!("there is no property \"{name}\"; there are {}", names(members))));
        };
        let (fits, wanted) = match member.value {
            MemberType::Text => (value.get().starts_with('"'), "a text"),
            MemberType::Bool => (matches!(value.get(), "true" | "false"), "true or false"),
            MemberType::Integer => (value.get().parse::<i64>().is_ok(), "a whole number"),
        };
        if !fits {
            return Err(invalid(format!("\"{name}\" must be {wanted}")));
        }
        if given[..at].iter().any(|(other, _)| other == name) {
            return Err(invalid(format!("\"{name}\" is there twice")));
        }
    }
    let missing = members.iter().find(|m| m.required && given.iter().all(|(name, _)| *name != m.name));
    if let Some(member) = missing {
        return Err(invalid(format!("it needs a \"{}\"", member.name)));
    }
    Properties::write_members(out, given.into_iter());
    Ok(())
}

fn invalid(why: String) -> Refusal {
    (Kind::InvalidValue, why)
}

fn names(members: &[Member]) -> String {
    let names: Vec<&str> = members.iter().map(|member| member.name).collect();
    names.join(", ")
}

fn shape(members: &[Member]) -> String {
    let names: Vec<String> = members.iter().map(|member| format!("\"{}\": …", member.name)).collect();
    format!("{{{}}}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBERS: &[Member] =
        &[Member::text("name").required(), Member::boolean("told"), Member::integer("minutes")];

    #[test]
    fn objects_have_the_members_that_cdf_knows() {
        let written = |document| {
            let mut out = Vec::new();
            objects(&mut out, document, MEMBERS).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(written("[]").unwrap(), "[]");
        assert_eq!(
            written(r#"[{"name": "a", "told": null}, {"minutes": 5, "name": "b", "told": true}]"#).unwrap(),
            r#"[{"name":"a"},{"minutes":5,"name":"b","told":true}]"#
        );
        for (document, text) in [
            ("{}", "array"),
            (r#"[{"name": 1}]"#, "element 1: \"name\" must be a text"),
            (r#"[{"name": "a"}, {"told": true}]"#, "element 2: it needs a \"name\""),
            (r#"[{"name": "a", "told": 1}]"#, "true or false"),
            (r#"[{"name": "a", "minutes": 1.5}]"#, "whole number"),
            (r#"[{"name": "a", "mail": "x"}]"#, "no property \"mail\""),
            (r#"[{"name": "a", "name": "b"}]"#, "twice"),
        ] {
            let (kind, why) = written(document).unwrap_err();
            assert!(kind == Kind::InvalidValue && why.contains(text), "{document}: {why}");
        }
        let mut out = Vec::new();
        assert!(object(&mut out, "[1]", MEMBERS).unwrap_err().1.contains("\"name\": …"));
        object(&mut out, r#"{"name": "a"}"#, MEMBERS).unwrap();
        assert_eq!(out, br#"{"name":"a"}"#);
    }
}
