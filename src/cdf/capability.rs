//! What a token may do, by the capabilities that CDF's token/inspect lists.

use serde_json::Value;

use super::error::list_names;

/// What is needed: `assetsAcl:WRITE`, of one RAW table if it is one.
#[derive(Debug, Clone, Copy)]
pub struct Need<'a> {
    pub capability: &'a str,
    pub raw_table: Option<(&'a str, &'a str)>,
}

/// Where in a project something is granted: `all`, or what it is limited to.
///
/// `capabilities` is CDF's list, as it is. None: nowhere.
pub fn granted(capabilities: &Value, project: &str, need: Need) -> Option<String> {
    let (acl, action) = need.capability.split_once(':')?;
    let mut scopes = Vec::new();
    for capability in capabilities.as_array()? {
        let grant = &capability[acl];
        let acts =
            grant["actions"].as_array().is_some_and(|actions| actions.iter().any(|given| given == action));
        if !acts || !holds_in(&capability["projectScope"], project) {
            continue;
        }
        let Some(scope) = grant["scope"].as_object() else { continue };
        if scope.contains_key("all") {
            return Some("all".to_owned());
        }
        let covers = |scope: &Value| need.raw_table.is_none_or(|table| covers_table(scope, table));
        scopes.extend(
            scope.iter().filter(|(_, limits)| covers(limits)).map(|(kind, limits)| words(kind, limits)),
        );
    }
    (!scopes.is_empty()).then(|| scopes.join("; "))
}

fn holds_in(scope: &Value, project: &str) -> bool {
    scope.get("allProjects").is_some()
        || scope["projects"].as_array().is_some_and(|projects| projects.iter().any(|named| named == project))
}

/// Whether a scope of RAW tables has this one in it. A database without tables stands for all of them.
fn covers_table(scope: &Value, (database, table): (&str, &str)) -> bool {
    let Some(databases) = scope.get("dbsToTables") else { return true };
    databases.get(database).is_some_and(|tables| {
        let tables = tables.as_array().or_else(|| tables["tables"].as_array());
        tables.is_none_or(|tables| tables.is_empty() || tables.iter().any(|named| named == table))
    })
}

/// A scope in words: `data sets 1, 2`.
fn words(kind: &str, limits: &Value) -> String {
    let listed = |noun: &str, part: &Value| {
        let names: Vec<String> = match part {
            Value::Array(items) => items.iter().map(text).collect(),
            Value::Object(items) => items.keys().cloned().collect(),
            _ => Vec::new(),
        };
        format!("{noun} {}", list_names(names.iter(), names.len()))
    };
    match kind.to_ascii_lowercase().as_str() {
        "datasetscope" => listed("data sets", &limits["ids"]),
        "idscope" => listed("ids", &limits["ids"]),
        "extractionpipelinescope" => listed("extraction pipelines", &limits["ids"]),
        "spaceidscope" => listed("spaces", &limits["spaceIds"]),
        "assetrootidscope" => listed("root assets", &limits["rootIds"]),
        "tablescope" => listed("RAW databases", &limits["dbsToTables"]),
        "currentuserscope" => "what the client has made itself".to_owned(),
        _ => format!("{kind} {limits}"),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope(capabilities: &Value, capability: &str) -> Option<String> {
        granted(capabilities, "p", Need { capability, raw_table: None })
    }

    #[test]
    fn scopes_are_told() {
        let mine = json!({ "projects": ["o", "p"] });
        let capabilities = json!([
            { "assetsAcl": { "actions": ["READ", "WRITE"], "scope": { "all": {} } }, "projectScope": mine },
            { "eventsAcl": { "actions": ["READ"], "scope": { "datasetScope": { "ids": [1, "2"] } } }, "projectScope": mine },
            { "eventsAcl": { "actions": ["READ"], "scope": { "idScope": { "ids": ["3"] } } }, "projectScope": mine },
            { "filesAcl": { "actions": ["READ"], "scope": { "datasetScope": { "ids": [1] } } }, "projectScope": mine },
            { "filesAcl": { "actions": ["READ"], "scope": { "all": {} } }, "projectScope": { "allProjects": {} } },
            { "labelsAcl": { "actions": ["READ"], "scope": { "all": {} } }, "projectScope": { "projects": ["o"] } },
            { "dataModelInstancesAcl": { "actions": ["READ"], "scope": { "spaceIdScope": { "spaceIds": ["s"] } } }, "projectScope": mine },
            { "rareAcl": { "actions": ["READ"], "scope": { "newScope": { "x": 1 } } }, "projectScope": mine },
        ]);
        for (capability, told) in [
            ("assetsAcl:WRITE", Some("all")),
            ("eventsAcl:READ", Some("data sets 1, 2; ids 3")),
            ("eventsAcl:WRITE", None),
            ("filesAcl:READ", Some("all")),
            ("labelsAcl:READ", None),
            ("dataModelInstancesAcl:READ", Some("spaces s")),
            ("rareAcl:READ", Some("newScope {\"x\":1}")),
            ("sequencesAcl:READ", None),
        ] {
            assert_eq!(scope(&capabilities, capability).as_deref(), told, "{capability}");
        }
        for nothing in [json!(null), json!([]), json!([null, 1, {}, { "assetsAcl": {} }])] {
            assert_eq!(scope(&nothing, "assetsAcl:READ"), None);
        }
    }

    #[test]
    fn raw_tables_are_found_in_their_scopes() {
        let capabilities = json!([{
            "rawAcl": { "actions": ["READ"], "scope": { "tableScope": { "dbsToTables": {
                "some": ["t"], "every": [], "new": { "tables": ["t"] },
            } } } },
            "projectScope": { "projects": ["p"] },
        }]);
        let of = |database, table| {
            granted(
                &capabilities,
                "p",
                Need { capability: "rawAcl:READ", raw_table: Some((database, table)) },
            )
        };
        assert_eq!(of("some", "t").as_deref(), Some("RAW databases some, every, new"));
        assert!(of("every", "x").is_some() && of("new", "t").is_some());
        assert!(of("some", "x").is_none() && of("new", "x").is_none() && of("none", "t").is_none());
    }
}
