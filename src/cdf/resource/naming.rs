//! How the columns of tables are named.

use std::borrow::Cow;

use super::column::Column;

/// How a table names its columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Naming {
    /// `external_id`, as PostgreSQL takes it without quotes.
    #[default]
    SnakeCase,
    /// `externalId`, as CDF calls it.
    CamelCase,
}

impl Naming {
    pub const NAMES: &'static [&'static str] = &["snake_case", "camelCase"];

    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "snake_case" => Some(Naming::SnakeCase),
            "camelCase" => Some(Naming::CamelCase),
            _ => None,
        }
    }

    /// As a value of the option.
    pub fn name(self) -> &'static str {
        match self {
            Naming::SnakeCase => Naming::NAMES[0],
            Naming::CamelCase => Naming::NAMES[1],
        }
    }

    /// The name of a column. CDF's name of a part is that of the whole and of the part: `startNode.externalId` is
    /// `startNodeExternalId`.
    pub fn of(self, column: &Column) -> Cow<'static, str> {
        match self {
            Naming::SnakeCase => column.name.into(),
            Naming::CamelCase => match column.property.split_once('.') {
                None => column.property.into(),
                Some((whole, part)) => {
                    let mut name = whole.to_owned();
                    let mut characters = part.chars();
                    name.extend(characters.next().map(|first| first.to_ascii_uppercase()));
                    name.extend(characters);
                    name.into()
                }
            },
        }
    }

    /// The naming that this name of a column belongs to; None if both namings give the same name.
    pub fn of_name(name: &str, column: &Column) -> Option<Naming> {
        let camel = Naming::CamelCase.of(column);
        match (name == column.name, name == camel) {
            (true, false) => Some(Naming::SnakeCase),
            (false, true) => Some(Naming::CamelCase),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::EDGES;
    use super::super::RESOURCES;
    use super::*;

    #[test]
    fn namings_are_known_by_their_names() {
        for name in Naming::NAMES {
            assert_eq!(Naming::parse(name).map(Naming::name), Some(*name));
        }
        assert_eq!(Naming::parse("camelcase"), None);
    }

    #[test]
    fn columns_are_found_by_either_name() {
        for resource in RESOURCES.iter().copied().chain([&EDGES]) {
            let camel: Vec<_> = resource.columns.iter().map(|c| Naming::CamelCase.of(c)).collect();
            for (at, column) in resource.columns.iter().enumerate() {
                assert!(!camel[..at].contains(&camel[at]), "{}", camel[at]);
                for naming in [Naming::SnakeCase, Naming::CamelCase] {
                    let found = resource.column(&naming.of(column)).expect("a column is found by its name");
                    assert_eq!(found.name, column.name);
                }
            }
        }
        let name = |name: &str| Naming::CamelCase.of(EDGES.column(name).unwrap());
        assert_eq!(name("start_node_external_id"), "startNodeExternalId");
        assert_eq!(name("external_id"), "externalId");
    }
}
