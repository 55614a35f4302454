//! SQL functions written against fmgr itself, because pgrx takes texts for UTF-8, and the database may have another encoding.

use pgrx::fcinfo::{pg_arg_is_null, pg_getarg_datum_raw};
use pgrx::prelude::*;

use crate::cdf::error::{Error, Kind};
use crate::pg::errors::OrRaise;
use crate::pg::text::{from_datum, to_datum};

pub static CALLING_CONVENTION: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// Exports a function to PostgreSQL: its name there, the name under which PostgreSQL looks for its calling convention, and
/// what it does with a [`FunctionCall`].
macro_rules! sql_function {
    ($(#[$about:meta])* $name:ident, $convention:ident, $body:expr) => {
        $(#[$about])*
        ///
        /// # Safety
        /// Called by PostgreSQL, with the arguments that the extension's script declares.
        #[no_mangle]
        #[pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $name(fcinfo: pgrx::pg_sys::FunctionCallInfo) -> pgrx::pg_sys::Datum {
            $crate::pg::redact::statement::show_current_statement();
            let body: fn(&$crate::pg::registration::function::FunctionCall) -> Result<pgrx::pg_sys::Datum, $crate::cdf::error::Error> = $body;
            // SAFETY: `fcinfo` is that of a call with the declared arguments and result.
            let call = unsafe { $crate::pg::registration::function::FunctionCall::new(fcinfo, stringify!($name)) };
            $crate::pg::errors::OrRaise::or_raise(body(&call))
        }

        /// PostgreSQL finds a function's calling convention by this name.
        #[no_mangle]
        pub extern "C" fn $convention() -> &'static pgrx::pg_sys::Pg_finfo_record {
            &$crate::pg::registration::function::CALLING_CONVENTION
        }
    };
}
pub(super) use sql_function;

/// A call of a function whose arguments are texts, except for booleans.
pub struct FunctionCall {
    fcinfo: pg_sys::FunctionCallInfo,
    name: &'static str,
}

impl FunctionCall {
    /// # Safety
    /// `fcinfo` is that of the call under way, and outlives what is made here.
    pub unsafe fn new(fcinfo: pg_sys::FunctionCallInfo, name: &'static str) -> FunctionCall {
        FunctionCall { fcinfo, name }
    }

    /// Refuses a call in a transaction that may only read.
    pub fn writes(&self) {
        let name = std::ffi::CString::new(self.name).unwrap_or_default();
        // SAFETY: reads the transaction's mode; the name is NUL-terminated.
        unsafe { pg_sys::PreventCommandIfReadOnly(name.as_ptr()) };
    }

    /// The argument with this number, from 0, which is a text. An empty one is none.
    pub fn text(&self, number: usize) -> Option<String> {
        // SAFETY: the caller of `new` has promised a call; the extension's script declares a text, or json, here.
        let text = unsafe {
            if pg_arg_is_null(self.fcinfo, number) {
                return None;
            } else {
                from_datum(pg_getarg_datum_raw(self.fcinfo, number))
            }
        };
        Some(text.or_raise()).filter(|text| !text.is_empty())
    }

    /// A text that has to be given; `parameter` is its name.
    pub fn required(&self, number: usize, parameter: &str) -> Result<String, Error> {
        self.text(number).ok_or_else(|| {
            Error::new(Kind::MissingValue, format!("{} needs a value for {parameter}", self.name))
        })
    }

    /// The argument with this number, which is a boolean. NULL is false.
    pub fn flag(&self, number: usize) -> bool {
        // SAFETY: as for texts; the extension's script declares a boolean here.
        unsafe {
            !pg_arg_is_null(self.fcinfo, number)
                && pg_getarg_datum_raw(self.fcinfo, number).value() & 0xff != 0
        }
    }
}

/// The result of a function that returns nothing.
pub fn void() -> pg_sys::Datum {
    pg_sys::Datum::null()
}

/// The result of a function that returns a text.
pub fn text(text: &str) -> pg_sys::Datum {
    to_datum(text)
}

/// A column of a result row.
pub enum ResultValue {
    Text(Option<String>),
    Flag(bool),
}

impl FunctionCall {
    /// Returns rows all at once, as the declared result has them.
    pub fn rows<const COLUMNS: usize>(
        &self,
        rows: &[[ResultValue; COLUMNS]],
    ) -> Result<pg_sys::Datum, Error> {
        // SAFETY: the caller of `new` has promised a call, of a function that returns rows of so many columns. What is
        // returned lives in the query's memory; a result set of the right kind is what PostgreSQL passes, or refused.
        unsafe {
            let result = (*self.fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let materialize = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            if result.is_null()
                || (*result).type_ != pg_sys::NodeTag::T_ReturnSetInfo
                || (*result).allowedModes & materialize as i32 == 0
            {
                let why = format!("{} returns rows, in a place that takes none", self.name);
                return Err(Error::new(Kind::Unsupported, why).hint("Call it in FROM."));
            }
            let memory = (*(*result).econtext).ecxt_per_query_memory;
            let before = pg_sys::MemoryContextSwitchTo(memory);
            let mut columns = std::ptr::null_mut();
            pg_sys::get_call_result_type(self.fcinfo, std::ptr::null_mut(), &mut columns);
            let columns = pg_sys::CreateTupleDescCopy(columns);
            let store = pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(before);
            for row in rows {
                let mut values = row.each_ref().map(|value| match value {
                    ResultValue::Text(text) => text.as_deref().map_or(pg_sys::Datum::null(), to_datum),
                    ResultValue::Flag(flag) => pg_sys::Datum::from(usize::from(*flag)),
                });
                let mut nulls = row.each_ref().map(|value| matches!(value, ResultValue::Text(None)));
                pg_sys::tuplestore_putvalues(store, columns, values.as_mut_ptr(), nulls.as_mut_ptr());
            }
            (*result).returnMode = materialize;
            (*result).setResult = store;
            (*result).setDesc = columns;
        }
        Ok(pg_sys::Datum::null())
    }
}
