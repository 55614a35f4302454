//! Status codes of datapoints: OPC UA's, 32 bits of which the two highest are the severity.

use hashbrown::HashMap;
use once_cell::sync::Lazy;

use crate::cdf::error::Kind;

/// Code by symbol.
static CODES: Lazy<HashMap<&'static str, u32>> = Lazy::new(|| {
    include_str!("status_codes.csv")
        .lines()
        .filter_map(|line| line.split_once(','))
        .filter_map(|(code, symbol)| Some((symbol, u32::from_str_radix(code.strip_prefix("0x")?, 16).ok()?)))
        .collect()
});

/// The most characters of a symbol: more than one with all flags has.
const SYMBOL_CHARS: usize = 255;

/// The part of a code that its symbol stands for; the rest are flags.
const SYMBOL_BITS: u32 = 0xFFFF_0000;

/// Why a status cannot be written.
type Refusal = (Kind, String);

/// Checks a code: 32 bits, and a severity that exists.
pub fn check_code(code: i64) -> Result<u32, Refusal> {
    let narrow = u32::try_from(code).map_err(|_| {
        (Kind::OutOfRange, format!("{code} is no status code; CDF takes those of OPC UA, of 32 bits"))
    })?;
    match narrow >> 30 {
        0..=2 => Ok(narrow),
        _ => {
            Err((Kind::InvalidValue, format!("the status code {code} is neither good nor uncertain nor bad")))
        }
    }
}

/// The code of a symbol, which may have flags after it (`Good, Overflow`).
pub fn code_of(symbol: &str) -> Result<u32, Refusal> {
    if symbol.len() > SYMBOL_CHARS {
        let why = format!("the status symbol has {} bytes; none has more than {SYMBOL_CHARS}", symbol.len());
        return Err((Kind::TooLong, why));
    }
    let name = symbol.split([',', ' ']).next().unwrap_or_default();
    CODES.get(name).copied().ok_or_else(|| {
        (
            Kind::InvalidValue,
            format!("\"{symbol}\" is no status symbol; CDF takes those of OPC UA, such as Good or Bad"),
        )
    })
}

/// Whether code and symbol say the same, as CDF demands where a point has both.
pub fn match_each_other(code: u32, symbol: u32) -> bool {
    code & SYMBOL_BITS == symbol & SYMBOL_BITS
}

/// Whether the severity is Bad: such a point may have no value, or one that is not finite.
pub fn is_bad(code: u32) -> bool {
    code >> 30 == 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_and_codes() {
        assert_eq!(code_of("Good"), Ok(0));
        assert_eq!(code_of("Bad"), Ok(0x8000_0000));
        assert_eq!(code_of("Uncertain, Overflow"), Ok(0x4000_0000));
        assert!(is_bad(code_of("BadSensorFailure").unwrap()) && !is_bad(0x4000_0000));
        for symbol in ["", "bad", "Ugly", "BadlyMisspelt"] {
            assert_eq!(code_of(symbol).unwrap_err().0, Kind::InvalidValue, "{symbol}");
        }
        for code in [-1, 1 << 32, 0xC000_0000] {
            assert!(check_code(code).is_err());
        }
        assert!(match_each_other(0x8000_0080, 0x8000_0000) && !match_each_other(0x8000_0000, 0));
        assert!(CODES.len() > 200);
    }
}
