//! Values that are used and never printed.
//!
//! Not here: which properties are sensitive (`properties`), and where secrets come from. What always holds: the only way to the text
//! is `expose`, so a search for that word finds every place that has it.

use std::fmt;

use super::properties;

/// What stands in the place of a secret wherever it would be printed.
pub(super) const MASK: &str = "***";

/// A text that `Debug` and `Display` hide.
#[derive(Clone, PartialEq, Eq, PartialOrd)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: for handing to what needs it, never for a log, a message or a page.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// The value of a librdkafka property: hidden when the property's name says that it is sensitive.
#[derive(Clone, PartialEq, Eq)]
pub enum PropertyValue {
    /// May be printed.
    Plain(String),
    /// May not.
    Sensitive(Secret),
}

impl PropertyValue {
    /// The value of the property `name`.
    pub fn new(name: &str, text: impl Into<String>) -> Self {
        if properties::is_sensitive(name) {
            Self::Sensitive(Secret::new(text))
        } else {
            Self::Plain(text.into())
        }
    }

    /// The text itself, secret or not: for librdkafka alone.
    pub fn expose(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            Self::Sensitive(secret) => secret.expose(),
        }
    }
}

impl fmt::Debug for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => fmt::Debug::fmt(text, f),
            Self::Sensitive(secret) => fmt::Debug::fmt(secret, f),
        }
    }
}

impl fmt::Display for PropertyValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(text) => f.write_str(text),
            Self::Sensitive(secret) => fmt::Display::fmt(secret, f),
        }
    }
}
