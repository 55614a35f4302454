//! Geographic features: the part of GeoJSON that CDF takes.

use serde_json::value::RawValue;

use super::json::{self, Properties, Refusal};
use crate::cdf::error::Kind;

/// The lists that the coordinates of a geometry consist of, down to the positions: the least number of elements at each level,
/// from the outside in.
static GEOMETRIES: [(&str, &[usize]); 6] = [
    ("Point", &[]),
    ("MultiPoint", &[0]),
    ("LineString", &[2]),
    ("MultiLineString", &[0, 2]),
    // Rings, each of which ends with its first position.
    ("Polygon", &[1, RING]),
    ("MultiPolygon", &[0, 1, RING]),
];

/// The least positions of a ring.
const RING: usize = 4;

/// Appends a feature without its nulls. Refuses what CDF would refuse.
pub fn feature(out: &mut Vec<u8>, text: &str) -> Result<(), Refusal> {
    let invalid = |error: serde_json::Error| {
        (Kind::InvalidValue, format!("the value must be a GeoJSON feature ({error})"))
    };
    json::check_depth(text)?;
    let feature: Properties = serde_json::from_str(text).map_err(invalid)?;
    only(&feature, "feature", &["type", "geometry", "properties"])?;
    let geometry: Properties = feature
        .get("geometry")
        .and_then(|geometry| serde_json::from_str(geometry.get()).ok())
        .unwrap_or_default();
    let kind = geometry.get("type").and_then(|kind| serde_json::from_str::<String>(kind.get()).ok());
    let (true, Some(kind)) = (feature.get("type").is_some_and(|kind| kind.get() == "\"Feature\""), kind)
    else {
        let why =
            "the value must be a GeoJSON feature: {\"type\": \"Feature\", \"geometry\": {\"type\": …, …}}";
        return Err((Kind::InvalidValue, why.into()));
    };
    only(&geometry, "geometry", &["type", "coordinates"])?;
    let Some((_, lists)) = GEOMETRIES.iter().find(|(name, _)| *name == kind) else {
        let names = GEOMETRIES.map(|(name, _)| name).join(", ");
        let why =
            format!("the type of the geometry is \"{}\"; CDF takes {names}", super::length::shown(&kind));
        return Err((Kind::InvalidValue, why));
    };
    let coordinates = geometry.get("coordinates").map_or("null", RawValue::get);
    coordinates_of(coordinates, lists)
        .map_err(|why| (Kind::InvalidValue, format!("the coordinates of a {kind} {why}")))?;
    if feature.get("properties").is_some_and(|value| !value.get().starts_with(['{', 'n'])) {
        return Err((Kind::InvalidValue, "the properties of the feature must be a JSON object".into()));
    }
    let feature: &RawValue = serde_json::from_str(text).map_err(invalid)?;
    json::without_nulls(out, feature).map_err(invalid)
}

/// Refuses members that CDF does not know.
fn only(object: &Properties<'_>, what: &str, known: &[&str]) -> Result<(), Refusal> {
    let strange = object.0.iter().find(|(name, value)| !known.contains(&&**name) && value.get() != "null");
    match strange {
        Some((name, _)) => {
            let name = super::length::shown(name);
            let why = format!("the {what} has \"{name}\"; CDF takes {}", known.join(", "));
            Err((Kind::InvalidValue, why))
        }
        None => Ok(()),
    }
}

fn coordinates_of(text: &str, lists: &[usize]) -> Result<(), String> {
    let elements: Vec<&RawValue> =
        serde_json::from_str(text).map_err(|_| "must be arrays of pairs of numbers".to_owned())?;
    let Some((least, inner)) = lists.split_first() else {
        let number =
            |element: &&RawValue| element.get().starts_with(|c: char| c == '-' || c.is_ascii_digit());
        return if elements.len() == 2 && elements.iter().all(number) {
            Ok(())
        } else {
            Err(format!("must be two numbers for each position, not {}", super::length::shown(text)))
        };
    };
    if elements.len() < *least {
        return Err(format!("have {} elements where CDF needs {least}", elements.len()));
    }
    elements.iter().try_for_each(|element| coordinates_of(element.get(), inner))?;
    let closed = || {
        let place = |at: Option<&&RawValue>| at.map(|at| serde_json::from_str::<[f64; 2]>(at.get()).ok());
        place(elements.first()) == place(elements.last())
    };
    if *least == RING && !closed() {
        Err("have a ring that does not end where it begins".to_owned())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(kind: &str, coordinates: &str) -> Result<(), String> {
        let text =
            format!(r#"{{"type":"Feature","geometry":{{"type":"{kind}","coordinates":{coordinates}}}}}"#);
        let mut out = Vec::new();
        feature(&mut out, &text).map_err(|(kind, why)| {
            assert_eq!(kind, Kind::InvalidValue);
            why
        })?;
        assert_eq!(out, text.as_bytes());
        Ok(())
    }

    #[test]
    fn each_geometry_has_coordinates_of_its_own() {
        let ring = "[[0,0],[1,0],[1,1],[0,0.0]]";
        for (kind, coordinates) in [
            ("Point", "[1.50,-2e1]"),
            ("MultiPoint", "[[1,2]]"),
            ("LineString", "[[1,2],[3,4]]"),
            ("MultiLineString", "[[[1,2],[3,4]]]"),
            ("Polygon", &format!("[{ring}]")),
            ("MultiPolygon", &format!("[[{ring},{ring}]]")),
        ] {
            assert_eq!(written(kind, coordinates), Ok(()));
        }
        for (kind, coordinates, why) in [
            ("Point", "[1,2,3]", "two numbers"),
            ("Point", "[1]", "two numbers"),
            ("Point", "[\"1\",2]", "two numbers"),
            ("Point", "null", "pairs of numbers"),
            ("LineString", "[[1,2]]", "1 elements where CDF needs 2"),
            ("LineString", "[1,2]", "pairs of numbers"),
            ("Polygon", "[]", "0 elements"),
            ("Polygon", "[[[0,0],[1,0],[0,0]]]", "3 elements where CDF needs 4"),
            ("Polygon", "[[[0,0],[1,0],[1,1],[0,1]]]", "does not end where it begins"),
            ("GeometryCollection", "[]", "MultiPolygon"),
        ] {
            let found = written(kind, coordinates).unwrap_err();
            assert!(found.contains(why), "{found}");
        }
    }

    #[test]
    fn members_that_cdf_does_not_know_are_refused_and_nulls_left_out() {
        let of = |more: &str, inside: &str| {
            let text = format!(
                r#"{{"type":"Feature","geometry":{{"type":"Point","coordinates":[1,2]{inside}}}{more}}}"#
            );
            let mut out = Vec::new();
            feature(&mut out, &text).map(|()| String::from_utf8(out).unwrap()).map_err(|(_, why)| why)
        };
        let plain = r#"{"type":"Feature","geometry":{"type":"Point","coordinates":[1,2]}}"#;
        assert_eq!(of(r#","bbox":null,"properties":null"#, r#","crs":null"#).as_deref(), Ok(plain));
        assert!(of(r#","properties":{"any":{"thing":[1]}}"#, "").is_ok());
        assert!(of(r#","properties":[1]"#, "").unwrap_err().contains("properties"));
        assert!(of(r#","bbox":[1,2,3,4]"#, "").unwrap_err().contains("feature has \"bbox\""));
        assert!(of("", r#","crs":"x""#).unwrap_err().contains("geometry has \"crs\""));
    }
}
