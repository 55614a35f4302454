//! Status codes of data points: OPC UA's, in 32 bits of which the two highest are the severity.

use std::sync::LazyLock;

use crate::errors::ApiError;

/// The codes with a name, from the standard's table, which the extension has as well. Other codes of a known severity
/// are accepted, and get the severity's name.
static SYMBOLS: LazyLock<Vec<(u32, &'static str)>> = LazyLock::new(|| {
    include_str!("../../../../src/cdf/resource/status_codes.csv")
        .lines()
        .filter_map(|line| line.split_once(','))
        .filter_map(|(code, symbol)| Some((u32::from_str_radix(code.strip_prefix("0x")?, 16).ok()?, symbol)))
        .collect()
});

/// The status of a data point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// Makes a status from a code, a symbol or both; without either it is Good. "If both are defined, they must match."
    pub fn parse(code: Option<i64>, symbol: Option<&str>) -> Result<Self, ApiError> {
        let by_code = match code {
            None => None,
            Some(code) => match u32::try_from(code) {
                Ok(code) if code >> 30 < 3 => Some(code),
                _ => return Err(ApiError::bad_request(format!("Invalid status code {code}"))),
            },
        };
        let by_symbol = match symbol {
            None => None,
            Some(symbol) => match SYMBOLS.iter().find(|(_, name)| *name == symbol) {
                Some((code, _)) => Some(*code),
                None => return Err(ApiError::bad_request(format!("Invalid status symbol '{symbol}'"))),
            },
        };
        match (by_code, by_symbol) {
            (Some(code), Some(named)) if code != named => Err(ApiError::bad_request(format!(
                "Status code {code} does not match status symbol '{}'",
                symbol.unwrap_or_default()
            ))),
            (code, named) => Ok(Self(code.or(named).unwrap_or(0))),
        }
    }

    /// Returns its name.
    pub fn symbol(self) -> &'static str {
        let named = |code: u32| SYMBOLS.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
        named(self.0).or_else(|| named(self.0 & 0xC000_0000)).unwrap_or("Good")
    }

    /// Whether it is exactly Good, which answers leave out.
    pub fn is_plain_good(self) -> bool {
        self.0 == 0
    }

    /// Whether its severity is Bad.
    pub fn is_bad(self) -> bool {
        self.0 >> 30 == 2
    }

    /// Whether its severity is Uncertain.
    pub fn is_uncertain(self) -> bool {
        self.0 >> 30 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_symbol() {
        assert_eq!(Status::parse(None, None), Ok(Status(0)));
        assert_eq!(Status::parse(Some(0x8000_0000), Some("Bad")), Ok(Status(0x8000_0000)));
        assert!(Status::parse(Some(1 << 30), Some("Bad")).is_err());
        assert!(Status::parse(Some(-1), None).is_err() && Status::parse(Some(0xC000_0000), None).is_err());
        assert!(Status::parse(None, Some("bad")).is_err());
        assert!(Status(0x808C_0000).is_bad() && Status(0x4090_0000).is_uncertain());
        assert_eq!(Status(0x80FF_0000).symbol(), "Bad");
    }
}
