//! Members of JSON objects that CDF takes only as it knows them.

/// A member's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemberType {
    Text,
    Bool,
    Integer,
}

/// A member of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    pub name: &'static str,
    pub value: MemberType,
    pub required: bool,
}

impl Member {
    pub const fn text(name: &'static str) -> Self {
        Member { name, value: MemberType::Text, required: false }
    }

    pub const fn boolean(name: &'static str) -> Self {
        Member { name, value: MemberType::Bool, required: false }
    }

    pub const fn integer(name: &'static str) -> Self {
        Member { name, value: MemberType::Integer, required: false }
    }

    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }
}
