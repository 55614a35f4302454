//! Secrets sealed at rest: text that only who has the key can open, and only in its own place.
//!
//! A sealed secret is `sealed:v1:` and, in base64url, the sign of the key, a random nonce, and what XChaCha20-Poly1305 makes
//! of the secret. The names of the place that it is for are authenticated with it, so that it cannot be opened in another.

use std::fmt;

use base64::prelude::{Engine, BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize, Zeroizing};

/// How a sealed secret begins, of whatever version.
const MARK: &str = "sealed:";
/// How one begins that this version understands.
pub const PREFIX: &str = "sealed:v1:";

const KEY: usize = 32;
const SIGN: usize = 8;
const NONCE: usize = 24;
/// What the cipher adds to a secret.
const TAG: usize = 16;

/// Where a sealed secret belongs.
#[derive(Debug, Clone, Copy)]
pub struct SecretPlace<'a> {
    pub server: &'a str,
    /// None: the mapping of PUBLIC.
    pub role: Option<&'a str>,
    /// What it is the value of.
    pub option: &'a str,
}

impl SecretPlace<'_> {
    /// No two places are the same bytes.
    fn bytes(&self) -> Vec<u8> {
        let mut bytes = PREFIX.as_bytes().to_vec();
        // No role has an empty name.
        for part in [self.server, self.role.unwrap_or_default(), self.option] {
            bytes.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            bytes.extend(part.as_bytes());
        }
        bytes
    }
}

/// A key, forgotten when it is dropped.
struct SealKey {
    cipher: XChaCha20Poly1305,
    /// What it is known by. It tells nothing of the key.
    sign: [u8; SIGN],
}

impl SealKey {
    fn new(key: &[u8; KEY]) -> Result<SealKey, SealError> {
        let cipher = XChaCha20Poly1305::new(key.into());
        // The tag of an empty text, under a nonce that no secret is sealed with: those are random.
        let (nonce, payload) = (XNonce::from([0xff; NONCE]), Payload { msg: b"", aad: b"the sign of a key" });
        let tag = cipher.encrypt(&nonce, payload).map_err(|_| SealError::Cipher)?;
        let sign = tag.first_chunk().copied().ok_or(SealError::Cipher)?;
        Ok(SealKey { cipher, sign })
    }
}

/// The keys of a key file: the first one seals, all open.
pub struct SealKeys(Vec<SealKey>);

/// Shows how many there are.
impl fmt::Debug for SealKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Why a secret cannot be sealed or opened. No text of it holds anything of a key or of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SealError {
    /// It is not in the form of a sealed secret.
    Form,
    /// It is in the form of another version.
    Version,
    /// None of the keys has sealed it.
    NoKey,
    /// It was sealed for another place, or was changed since.
    Misplaced,
    /// The cipher, or the system's random numbers, do not work.
    Cipher,
}

/// A sealed secret, taken apart.
struct SealedParts {
    sign: [u8; SIGN],
    nonce: [u8; NONCE],
    sealed: Vec<u8>,
}

impl SealedParts {
    fn read(text: &str) -> Result<SealedParts, SealError> {
        let encoded = match text.strip_prefix(PREFIX) {
            Some(encoded) => encoded,
            None if is_sealed(text) => return Err(SealError::Version),
            None => return Err(SealError::Form),
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| SealError::Form)?;
        let (sign, rest) = bytes.split_first_chunk().ok_or(SealError::Form)?;
        let (nonce, sealed) = rest.split_first_chunk().ok_or(SealError::Form)?;
        match sealed.len() {
            // No secret is empty.
            ..=TAG => Err(SealError::Form),
            _ => Ok(SealedParts { sign: *sign, nonce: *nonce, sealed: sealed.to_vec() }),
        }
    }
}

/// Whether a text is, or is meant to be, a sealed secret.
pub fn is_sealed(text: &str) -> bool {
    text.starts_with(MARK)
}

/// Whether a text has the form of a sealed secret. That says nothing of whether it can be opened.
///
/// # Errors
/// What is wrong with it.
pub fn check_form(text: &str) -> Result<(), SealError> {
    SealedParts::read(text).map(drop)
}

impl SealKeys {
    /// Reads a key file: a key in hexadecimal digits on each line; `#` begins a comment.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold nothing of it.
    pub fn read(file: &[u8]) -> Result<SealKeys, String> {
        let mut keys = Vec::new();
        for (at, line) in file.split(|byte| *byte == b'\n').enumerate() {
            let line = line.split(|byte| *byte == b'#').next().unwrap_or_default().trim_ascii();
            if line.is_empty() {
                continue;
            }
            let number = at + 1;
            let Some(key) = digits(line) else {
                return Err(format!("line {number} is not a key of {} hexadecimal digits", 2 * KEY));
            };
            keys.push(SealKey::new(&key).map_err(|_| "the cipher does not work".to_owned())?);
        }
        if keys.is_empty() {
            Err("it holds no key".into())
        } else {
            Ok(SealKeys(keys))
        }
    }

    /// Seals a secret for a place, under the first key.
    ///
    /// # Errors
    /// `Cipher`.
    pub fn seal(&self, secret: &SecretString, place: &SecretPlace<'_>) -> Result<String, SealError> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Cipher)?;
        let key = self.0.first().ok_or(SealError::NoKey)?;
        let payload = Payload { msg: secret.expose_secret().as_bytes(), aad: &place.bytes() };
        let sealed = key.cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Cipher)?;
        let bytes = [&key.sign[..], &nonce, &sealed].concat();
        Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub fn open(&self, text: &str, place: &SecretPlace<'_>) -> Result<SecretString, SealError> {
        let SealedParts { sign, nonce, sealed } = SealedParts::read(text)?;
        let key = self.0.iter().find(|key| key.sign == sign).ok_or(SealError::NoKey)?;
        let payload = Payload { msg: &sealed, aad: &place.bytes() };
        let opened = key.cipher.decrypt(&XNonce::from(nonce), payload).map_err(|_| SealError::Misplaced)?;
        match String::from_utf8(opened) {
            Ok(secret) => Ok(SecretString::from(secret)),
            Err(error) => {
                error.into_bytes().zeroize();
                Err(SealError::Misplaced)
            }
        }
    }

    /// Whether a sealed secret is under the first key.
    pub fn is_current(&self, text: &str) -> bool {
        SealedParts::read(text).is_ok_and(|parts| self.0.first().is_some_and(|key| key.sign == parts.sign))
    }
}

/// A key of its hexadecimal digits.
fn digits(line: &[u8]) -> Option<Zeroizing<[u8; KEY]>> {
    let mut key = Zeroizing::new([0; KEY]);
    if line.len() != 2 * KEY {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(line.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ONE: &str = "00112233445566778899aabbccddeeff00112233445566778899AABBCCDDEEFF";
    const TWO: &str = "ffeeddccbbaa99887766554433221100ffeeddccbbaa99887766554433221100";
    const PLACE: SecretPlace<'static> =
        SecretPlace { server: "cdf", role: Some("loader"), option: "client_secret" };

    fn keys(text: &str) -> SealKeys {
        SealKeys::read(text.as_bytes()).unwrap()
    }

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    fn opened(keys: &SealKeys, text: &str, place: &SecretPlace<'_>) -> Result<String, SealError> {
        keys.open(text, place).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn what_is_sealed_comes_back_and_shows_nothing() {
        let keys = keys(ONE);
        for text in ["geheim", "x", "ö ' \" \\ \u{1f511}", &"long".repeat(5000)] {
            let sealed = keys.seal(&secret(text), &PLACE).unwrap();
            assert!(sealed.starts_with("sealed:v1:") && is_sealed(&sealed) && keys.is_current(&sealed));
            assert!(check_form(&sealed).is_ok() && sealed.is_ascii() && !sealed.contains("geheim"));
            assert_eq!(opened(&keys, &sealed, &PLACE).as_deref(), Ok(text));
            assert_ne!(sealed, keys.seal(&secret(text), &PLACE).unwrap(), "a nonce is used once");
        }
    }

    #[test]
    fn what_is_moved_or_changed_is_not_opened() {
        let keys = keys(ONE);
        let sealed = keys.seal(&secret("geheim"), &PLACE).unwrap();
        for place in [
            SecretPlace { server: "cdf2", ..PLACE },
            SecretPlace { role: Some("loader2"), ..PLACE },
            SecretPlace { role: None, ..PLACE },
            SecretPlace { option: "session_key", ..PLACE },
            SecretPlace { server: "cdfl", role: Some("oader"), ..PLACE },
            SecretPlace { server: "", role: Some("cdfloader"), ..PLACE },
        ] {
            assert_eq!(opened(&keys, &sealed, &place), Err(SealError::Misplaced), "{place:?}");
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(&sealed[PREFIX.len()..]).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let text = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(changed));
            let expected = if at < SIGN { SealError::NoKey } else { SealError::Misplaced };
            assert_eq!(opened(&keys, &text, &PLACE), Err(expected), "byte {at}");
        }
    }

    #[test]
    fn what_has_another_form_is_told_from_what_has_another_key() {
        let keys = keys(ONE);
        let sealed = keys.seal(&secret("x"), &PLACE).unwrap();
        assert_eq!(check_form("sealed:v2:AAAA"), Err(SealError::Version));
        assert_eq!(check_form("plain"), Err(SealError::Form));
        for text in
            [PREFIX, "sealed:v1:?", "sealed:v1:AAAA", &sealed[..sealed.len() - 2], &format!("{sealed}=")]
        {
            assert_eq!(check_form(text), Err(SealError::Form), "{text}");
        }
        let other = super::tests::keys(TWO);
        assert_eq!(opened(&other, &sealed, &PLACE), Err(SealError::NoKey));
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let before = keys(ONE).seal(&secret("geheim"), &PLACE).unwrap();
        let rotated = keys(&format!("{TWO}\n{ONE}\n"));
        assert!(!rotated.is_current(&before));
        assert_eq!(opened(&rotated, &before, &PLACE).as_deref(), Ok("geheim"));
        let after = rotated.seal(&secret("geheim"), &PLACE).unwrap();
        assert!(rotated.is_current(&after));
        assert_eq!(opened(&keys(TWO), &after, &PLACE).as_deref(), Ok("geheim"));
        assert_eq!(opened(&keys(ONE), &after, &PLACE), Err(SealError::NoKey));
    }

    #[test]
    fn key_files_are_read_strictly() {
        assert_eq!(keys(&format!("# made today\n\n  {ONE} # the new one\r\n{TWO}")).0.len(), 2);
        for (file, why) in [
            ("", "it holds no key"),
            ("# nothing\n \n", "it holds no key"),
            (&ONE[1..], "line 1 is not a key of 64 hexadecimal digits"),
            (&format!("{ONE}0"), "line 1 is not a key of 64 hexadecimal digits"),
            (&format!("{ONE}\n{}g", &TWO[1..]), "line 2 is not a key of 64 hexadecimal digits"),
            (&format!("{ONE} {TWO}"), "line 1 is not a key of 64 hexadecimal digits"),
            (&format!("\u{feff}{ONE}"), "line 1 is not a key of 64 hexadecimal digits"),
        ] {
            let error = SealKeys::read(file.as_bytes()).unwrap_err();
            assert_eq!(error, why);
        }
        assert!(!format!("{:?}", keys(ONE)).contains("0011"));
    }

    mod fuzz {
        use super::*;

        /// Text of any kind, some of which looks like what is read here.
        fn sent() -> impl Strategy<Value = String> {
            let part = prop_oneof![
                Just(ONE.to_owned()),
                Just(TWO.to_owned()),
                Just(PREFIX.to_owned()),
                Just("sealed:".to_owned()),
                "[0-9a-fA-F]{0,70}",
                "[A-Za-z0-9_-]{0,80}",
                "[ \\t\\r\\n#]{0,3}",
                ".{0,5}",
            ];
            prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
        }

        proptest! {
            #[test]
            fn a_key_file_has_nothing_but_keys(text in sent()) {
                let lines = text.split('\n').map(|line| {
                    line.split('#').next().unwrap_or_default().trim_matches([' ', '\t', '\r', '\n', '\x0c'])
                });
                let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
                let is_key = |line: &&str| line.len() == 64 && line.bytes().all(|byte| byte.is_ascii_hexdigit());
                let expected = (!lines.is_empty() && lines.iter().all(is_key)).then_some(lines.len());
                prop_assert_eq!(SealKeys::read(text.as_bytes()).ok().map(|keys| keys.0.len()), expected);
            }

            #[test]
            fn nothing_opens_but_what_was_sealed(text in sent(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
                let keys = keys(ONE);
                prop_assert!(keys.open(&text, &PLACE).is_err());
                let mut changed = keys.seal(&secret("geheim"), &PLACE).unwrap().into_bytes();
                let at = at.index(changed.len());
                let before = std::mem::replace(&mut changed[at], byte);
                let opened = String::from_utf8(changed).ok().and_then(|changed| keys.open(&changed, &PLACE).ok());
                prop_assert_eq!(opened.is_some(), before == byte);
            }
        }
    }
}
