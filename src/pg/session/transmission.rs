//! Settings that decide how values look as text. What a type's output function prints for CDF, and what its input
//! function reads from there, must not depend on the session's settings: a range of dates would come back as other
//! dates.

use std::ffi::CStr;

use pgrx::pg_sys;

/// What the text of a type's values depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TextForm {
    /// Nothing.
    Fixed,
    /// The formats of timestamps, intervals, numbers and bytes.
    Formats,
    /// The formats, and which names need their schema.
    Names,
}

/// The settings under which texts are exchanged. `ISO` leaves the order of day and month in input as it is.
static FORMATS: [(&CStr, &CStr); 9] = [
    (c"DateStyle", c"ISO"),
    (c"IntervalStyle", c"postgres"),
    (c"TimeZone", c"UTC"),
    (c"extra_float_digits", c"3"),
    (c"bytea_output", c"hex"),
    (c"lc_monetary", c"C"),
    (c"xmloption", c"content"),
    (c"quote_all_identifiers", c"off"),
    (c"array_nulls", c"on"),
];
const SEARCH_PATH: (&CStr, &CStr) = (c"search_path", c"pg_catalog");

impl TextForm {
    /// Returns what a type's text form depends on.
    pub fn of(oid: pg_sys::Oid) -> TextForm {
        // SAFETY: catalog look-ups of a column's type and of the types that it consists of.
        unsafe {
            let oid = pg_sys::getBaseType(oid);
            match oid {
                pg_sys::BOOLOID
                | pg_sys::INT2OID
                | pg_sys::INT4OID
                | pg_sys::INT8OID
                | pg_sys::NUMERICOID
                | pg_sys::TEXTOID
                | pg_sys::VARCHAROID
                | pg_sys::BPCHAROID
                | pg_sys::NAMEOID
                | pg_sys::UUIDOID
                | pg_sys::JSONOID
                | pg_sys::JSONBOID
                | pg_sys::INETOID
                | pg_sys::CIDROID
                | pg_sys::MACADDROID
                | pg_sys::BITOID
                | pg_sys::VARBITOID
                | pg_sys::OIDOID => return TextForm::Fixed,
                pg_sys::REGCLASSOID
                | pg_sys::REGCOLLATIONOID
                | pg_sys::REGCONFIGOID
                | pg_sys::REGDICTIONARYOID
                | pg_sys::REGOPEROID
                | pg_sys::REGOPERATOROID
                | pg_sys::REGPROCOID
                | pg_sys::REGPROCEDUREOID
                | pg_sys::REGTYPEOID => return TextForm::Names,
                _ => {}
            }
            let element = pg_sys::get_element_type(oid);
            if element != pg_sys::InvalidOid {
                // array_nulls decides how a NULL in an array is read.
                return TextForm::of(element).max(TextForm::Formats);
            }
            match pg_sys::get_typtype(oid) as u8 {
                pg_sys::TYPTYPE_ENUM => TextForm::Fixed,
                pg_sys::TYPTYPE_RANGE => TextForm::of(pg_sys::get_range_subtype(oid)).max(TextForm::Formats),
                pg_sys::TYPTYPE_MULTIRANGE => TextForm::of(pg_sys::get_multirange_range(oid)),
                pg_sys::TYPTYPE_COMPOSITE => TextForm::of_composite(oid),
                // The types that come with PostgreSQL depend on the formats only.
                _ if oid.to_u32() < pg_sys::FirstNormalObjectId => TextForm::Formats,
                _ => TextForm::Names,
            }
        }
    }

    /// # Safety
    /// The type is a composite one.
    unsafe fn of_composite(oid: pg_sys::Oid) -> TextForm {
        // SAFETY: the caller's promise; the descriptor is a copy.
        unsafe {
            let descriptor =
                pgrx::PgTupleDesc::from_pg_unchecked(pg_sys::lookup_rowtype_tupdesc_copy(oid, -1));
            let fields = descriptor.iter().filter(|attribute| !attribute.attisdropped);
            fields.map(|attribute| TextForm::of(attribute.atttypid)).fold(TextForm::Formats, TextForm::max)
        }
    }

    /// Sets the settings, where the session has other values, until [`Fixed::end`]. An ERROR in between resets them
    /// with its transaction.
    pub fn fix(self) -> Fixed {
        let mut level = None;
        if self >= TextForm::Formats {
            FORMATS.iter().for_each(|setting| fix(setting, &mut level));
        }
        if self >= TextForm::Names {
            fix(&SEARCH_PATH, &mut level);
        }
        Fixed(level)
    }
}

/// Settings that were set; None if the session had these values already.
#[must_use]
pub struct Fixed(Option<std::ffi::c_int>);

impl Fixed {
    /// Restores the session's own settings.
    pub fn end(self) {
        if let Some(level) = self.0 {
            // SAFETY: `fix` has opened this level, and no level that was opened later is still open.
            unsafe { pg_sys::AtEOXact_GUC(true, level) }
        }
    }
}

fn fix((name, value): &(&'static CStr, &'static CStr), level: &mut Option<std::ffi::c_int>) {
    // SAFETY: the settings exist in every version, and everybody may give them these values; names and values are
    // NUL-terminated.
    unsafe {
        let current = pg_sys::GetConfigOption(name.as_ptr(), false, false);
        if is_so(CStr::from_ptr(current).to_bytes(), value.to_bytes()) {
            return;
        }
        level.get_or_insert_with(|| pg_sys::NewGUCNestLevel());
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
    }
}

/// Whether the current value has the same effect: for `DateStyle` the format counts, for `extra_float_digits` that all
/// digits are printed.
fn is_so(current: &[u8], wanted: &[u8]) -> bool {
    match wanted {
        b"ISO" => current.starts_with(wanted),
        b"3" => matches!(current, b"1" | b"2" | b"3"),
        wanted => current == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_say_the_same_stay() {
        assert!(is_so(b"ISO, MDY", b"ISO") && is_so(b"ISO", b"ISO") && !is_so(b"SQL, DMY", b"ISO"));
        assert!(is_so(b"1", b"3") && is_so(b"3", b"3") && !is_so(b"0", b"3") && !is_so(b"-15", b"3"));
        assert!(is_so(b"UTC", b"UTC") && !is_so(b"Europe/Oslo", b"UTC"));
    }
}
