//! The classes of errors, each with its SQLSTATE.

/// The class of an error. Each has one SQLSTATE. No failure of CDF is of class 53 or 58: clients take those for a dying
/// server, and break the connection before their user sees the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// DNS, TCP or TLS to CDF or to the identity provider failed, after retries; or the server is not CDF.
    CannotConnect,
    /// An established connection broke, after retries; or the answer is not CDF's.
    ConnectionLost,
    /// The identity provider or CDF does not accept the credentials, or they have no access to the project.
    NotAuthenticated,
    /// CDF answered 403.
    Forbidden,
    /// An item exists already where it must not.
    Duplicate,
    /// A parent, asset, data set, series or label does not exist.
    MissingReference,
    /// A text or document is longer than CDF takes.
    TooLong,
    /// A number or timestamp is out of CDF's range.
    OutOfRange,
    /// A value that CDF requires is NULL.
    MissingValue,
    /// A text that is invalid in its encoding, or cannot be converted to the encoding it needs.
    InvalidEncoding,
    /// Any other value that CDF does not take.
    InvalidValue,
    /// Throttled for longer than the settings allow.
    Throttled,
    /// A configured limit of this server was reached.
    LimitExceeded,
    /// Cancelled, or the deadline of the flush passed.
    TimedOut,
    /// CDF or the identity provider answered with a server error, after retries.
    ServerFailure,
    /// The cursor of a read has expired.
    CursorExpired,
    /// Not supported.
    Unsupported,
    /// An option holds a value that cannot be used.
    InvalidOption,
    /// A defect of this extension.
    Internal,
}

impl Kind {
    /// The five characters of the SQLSTATE that users see.
    pub fn sqlstate(self) -> &'static str {
        match self {
            Kind::CannotConnect => "08001",
            Kind::ConnectionLost | Kind::Throttled | Kind::ServerFailure => "08006",
            Kind::NotAuthenticated => "28000",
            Kind::Forbidden => "42501",
            Kind::Duplicate => "23505",
            Kind::MissingReference => "23503",
            Kind::TooLong => "22001",
            Kind::OutOfRange => "22003",
            Kind::MissingValue => "22004",
            Kind::InvalidEncoding => "22021",
            Kind::InvalidValue => "22023",
            Kind::LimitExceeded => "53400",
            Kind::TimedOut => "57014",
            Kind::CursorExpired => "24000",
            Kind::Unsupported => "0A000",
            Kind::InvalidOption => "HV00J",
            Kind::Internal => "XX000",
        }
    }
}
