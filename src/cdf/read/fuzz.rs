//! Random pages of lists, as CDF might answer them.

use proptest::prelude::*;

use super::call::take_page;
use super::sequence_rows;
use crate::cdf::document;
use crate::cdf::fuzz::{config, sent};
use crate::cdf::table::view::View;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_page_has_its_items_and_a_cursor_that_goes_on(bytes in sent()) {
        let Ok(answer) = document::parse(&bytes) else { return Ok(()) };
        let listed = answer["items"].as_array().map_or(0, |all| all.len());
        let (items, cursor) = take_page(answer);
        prop_assert_eq!(items.len(), listed);
        // An empty cursor would begin the list again, without end.
        prop_assert!(cursor.is_none_or(|cursor| !cursor.is_empty()));
    }

    #[test]
    fn a_page_of_a_sequence_has_a_row_for_each(bytes in sent()) {
        let Ok(answer) = document::parse(&bytes) else { return Ok(()) };
        let listed = answer["rows"].as_array().map_or(0, |all| all.len());
        let columns = answer["columns"].as_array().map_or(0, |all| all.len());
        let rows = sequence_rows::items(answer);
        prop_assert_eq!(rows.len(), listed);
        for row in rows {
            prop_assert!(row["columns"].as_object().is_some_and(|cells| cells.into_iter().count() <= columns));
        }
    }

    #[test]
    fn a_definition_of_a_view_has_properties_of_known_sizes(bytes in sent()) {
        let Ok(answer) = serde_json::from_slice::<serde_json::Value>(&bytes) else { return Ok(()) };
        for view in answer["items"].as_array().into_iter().flatten().filter_map(View::read) {
            let names: Vec<&str> = view.properties.iter().map(|property| property.name.as_str()).collect();
            prop_assert!(names.iter().all(|name| view.property(name).is_some()));
        }
    }
}
