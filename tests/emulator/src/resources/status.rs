//! Status codes of data points: OPC UA's, in 32 bits of which the two highest are the severity.

use crate::errors::ApiError;

/// Codes with a name. Others of a known severity are accepted and named by it.
static SYMBOLS: &[(u32, &str)] = &[
    (0x0000_0000, "Good"),
    (0x002D_0000, "GoodSubscriptionTransferred"),
    (0x002E_0000, "GoodCompletesAsynchronously"),
    (0x002F_0000, "GoodOverload"),
    (0x0030_0000, "GoodClamped"),
    (0x0096_0000, "GoodLocalOverride"),
    (0x00A2_0000, "GoodEntryInserted"),
    (0x00A3_0000, "GoodEntryReplaced"),
    (0x00A5_0000, "GoodNoData"),
    (0x00A6_0000, "GoodMoreData"),
    (0x4000_0000, "Uncertain"),
    (0x408F_0000, "UncertainNoCommunicationLastUsableValue"),
    (0x4090_0000, "UncertainLastUsableValue"),
    (0x4091_0000, "UncertainSubstituteValue"),
    (0x4092_0000, "UncertainInitialValue"),
    (0x4093_0000, "UncertainSensorNotAccurate"),
    (0x4094_0000, "UncertainEngineeringUnitsExceeded"),
    (0x4095_0000, "UncertainSubNormal"),
    (0x40A4_0000, "UncertainDataSubNormal"),
    (0x8000_0000, "Bad"),
    (0x8001_0000, "BadUnexpectedError"),
    (0x8002_0000, "BadInternalError"),
    (0x8003_0000, "BadOutOfMemory"),
    (0x8004_0000, "BadResourceUnavailable"),
    (0x8005_0000, "BadCommunicationError"),
    (0x800A_0000, "BadTimeout"),
    (0x800C_0000, "BadShutdown"),
    (0x800D_0000, "BadServerNotConnected"),
    (0x8031_0000, "BadNoCommunication"),
    (0x8032_0000, "BadWaitingForInitialData"),
    (0x8033_0000, "BadNodeIdInvalid"),
    (0x8034_0000, "BadNodeIdUnknown"),
    (0x803A_0000, "BadNotReadable"),
    (0x803C_0000, "BadOutOfRange"),
    (0x803D_0000, "BadNotSupported"),
    (0x803E_0000, "BadNotFound"),
    (0x8089_0000, "BadConfigurationError"),
    (0x808A_0000, "BadNotConnected"),
    (0x808B_0000, "BadDeviceFailure"),
    (0x808C_0000, "BadSensorFailure"),
    (0x808D_0000, "BadOutOfService"),
    (0x809B_0000, "BadNoData"),
    (0x809D_0000, "BadDataLost"),
    (0x809E_0000, "BadDataUnavailable"),
];

/// The status of a data point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status(pub u32);

impl Status {
    /// From a code, a symbol or both; nothing is Good. "If both are defined, they must match."
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

    /// Its name.
    pub fn symbol(self) -> &'static str {
        let named = |code: u32| SYMBOLS.iter().find(|(known, _)| *known == code).map(|(_, name)| *name);
        named(self.0).or_else(|| named(self.0 & 0xC000_0000)).unwrap_or("Good")
    }

    /// Exactly Good, which is never echoed.
    pub fn is_plain_good(self) -> bool {
        self.0 == 0
    }

    /// Severity Bad.
    pub fn is_bad(self) -> bool {
        self.0 >> 30 == 2
    }

    /// Severity Uncertain.
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
