//! What the comments on the built-in tables and columns say: what CDF takes in them, as it is declared.

use time::OffsetDateTime;

use super::column::Column;
use super::definition::Resource;
use super::rule::{Described, Limit, Rule, EXTERNAL_ID_CHARS};

impl Resource {
    /// The comment on the built-in table.
    pub fn comment(&self) -> String {
        let what = format!("CDF: a row is one {}.", self.noun);
        if self.has_key() {
            format!("{what} An INSERT updates the one that exists under the same key; COMMIT delivers.")
        } else {
            format!("{what} Rows can only be added; they go last in their transaction.")
        }
    }
}

impl Column {
    /// The comment on the column.
    pub fn comment(&self) -> String {
        let text = |min: usize, max: usize| match min {
            0 => format!("at most {max} characters"),
            _ => format!("{min} to {max} characters"),
        };
        let rule = match self.rule {
            Rule::ReadOnly => "read-only: CDF sets it".into(),
            Rule::Id => "CDF's internal id; given in an INSERT, it addresses the existing item".into(),
            Rule::ExternalId => format!("the key; at most {EXTERNAL_ID_CHARS} characters"),
            Rule::Subject => {
                format!("external id of what the row is about; 1 to {EXTERNAL_ID_CHARS} characters")
            }
            Rule::Text { min, max } => text(min, max),
            Rule::ImmutableText { min, max } => format!("{}; cannot be changed later", text(min, max)),
            Rule::OneOf(names) => format!("one of {}", names.join(", ")),
            Rule::Number { min, max } => format!("{min} to {max}"),
            Rule::SequenceColumns => {
                "an array of objects with externalId, name, description, valueType, metadata".into()
            }
            Rule::Bool => "true or false".into(),
            Rule::ImmutableBool => "true or false; cannot be changed later".into(),
            Rule::Timestamp => "a time from 1970 on, in milliseconds".into(),
            Rule::Metadata(limits) => format!(
                "an object of texts: at most {} pairs, {} bytes in a key, {} in a value, {} in all",
                limits.pairs, limits.key, limits.value, limits.total
            ),
            Rule::GeoLocation => "a GeoJSON feature".into(),
            Rule::Labels { max } => format!("external ids of labels, at most {max}"),
            Rule::IdOf => "an internal id; give this or the external id, not both".into(),
            Rule::Ids { max } => format!("internal ids, at most {max}"),
            Rule::Parent => "external id of the parent, which may come in the same transaction".into(),
            Rule::Reference { to, .. } => {
                format!("external id of the {}; give this or its id, not both", to.noun)
            }
            Rule::References { to, max, .. } => format!("external ids of {}s, at most {max}", to.noun),
            Rule::Object(_) => "an object".into(),
            Rule::Objects(_) => "an array of objects".into(),
            Rule::Part(part) => part.text(),
        };
        format!("{}: {rule}", self.property)
    }
}

impl Described {
    /// The text with its limits.
    fn text(self) -> String {
        let mut parts = self.what.split("{}");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for (limit, part) in self.limits.iter().zip(parts) {
            text += &limit.text();
            text += part;
        }
        text
    }
}

impl Limit {
    fn text(self) -> String {
        match self {
            Limit::Count(count) => count.to_string(),
            Limit::Number(number) => format!("{number:e}"),
            Limit::Mebibytes(bytes) => format!("{} MiB", bytes >> 20),
            Limit::Year(millis) => OffsetDateTime::from_unix_timestamp(millis.div_euclid(1000))
                .map_or_else(|_| String::new(), |time| time.year().to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::RESOURCES;
    use super::*;

    #[test]
    fn comments_are_plain() {
        for resource in RESOURCES {
            assert!(resource.comment().is_ascii());
            assert!(resource.columns.iter().all(|column| column.comment().is_ascii()));
        }
    }

    #[test]
    fn limits_stand_where_the_text_has_a_place_for_them() {
        let of =
            |resource: &str, column: &str| Resource::get(resource).unwrap().column(column).unwrap().comment();
        let point = of("datapoints", "value");
        assert_eq!(point, "value: a number of the series' unit, from -1e100 to 1e100");
        let time = of("datapoints", "timestamp");
        assert_eq!(time, "timestamp: the key within the series; in milliseconds, from 1900 to 2099");
        let columns = of("raw_rows", "columns");
        assert_eq!(columns, "columns: an object of all columns of the row; at most 5 MiB");
        for column in RESOURCES.iter().flat_map(|resource| resource.columns) {
            if let Rule::Part(part) = column.rule {
                assert_eq!(part.what.matches("{}").count(), part.limits.len(), "{}", part.what);
            }
        }
    }
}
