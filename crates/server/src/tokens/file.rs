//! The file of hashed tokens: who each is, and what it may do where.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::{Digest, Sha256};
use steadfast_grpc::{HubName, InvalidHubName, Role};
use subtle::ConstantTimeEq;

/// What stands before a hash, so that another kind of hash can stand there one day.
const HASH_PREFIX: &str = "sha256:";

/// A token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenFileError {
    #[error("the token file {path:?} cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the token file {path:?} cannot be used: line {line}: {problem}")]
    Line { path: PathBuf, line: usize, problem: LineError },
    #[error(
        "the token file {path:?} holds no token, so nobody could call; make one with 'steadfast token new'"
    )]
    Empty { path: PathBuf },
}

/// What is wrong with a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineError {
    #[error("a line has a name, a hash and grants, with blanks between them")]
    Parts,
    #[error("the hash is 'sha256:' and 64 hexadecimal digits")]
    Hash,
    #[error("the name or the hash stands on another line already")]
    Twice,
    #[error(transparent)]
    Grant(#[from] GrantError),
}

/// A grant that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum GrantError {
    #[error(
        "{0:?} is no role: there are read, write, worker and admin, such as in 'read@orders' or 'worker@*'"
    )]
    Role(String),
    #[error(transparent)]
    Hub(#[from] InvalidHubName),
}

/// A role in one hub, or in all: `read@orders`, `worker@*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    role: Role,
    hub: Option<HubName>,
}

const ROLES: [(&str, Role); 4] =
    [("read", Role::Read), ("write", Role::Write), ("worker", Role::Worker), ("admin", Role::Admin)];

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let (role, hub) = text.split_once('@').unwrap_or((text, "*"));
        let Some((_, role)) = ROLES.iter().find(|(name, _)| *name == role) else {
            return Err(GrantError::Role(role.to_owned()));
        };
        let hub = if hub == "*" { None } else { Some(hub.parse()?) };
        Ok(Self { role: *role, hub })
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = ROLES.iter().find(|(_, role)| *role == self.role).map_or("", |(name, _)| name);
        write!(f, "{role}@{}", self.hub.as_ref().map_or("*", HubName::as_str))
    }
}

/// The hash of a token. Tokens are 256 random bits, so a plain hash cannot be guessed back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Hash([u8; 32]);

impl Hash {
    fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix(HASH_PREFIX)?;
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HASH_PREFIX)?;
        hex(&self.0, f)
    }
}

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// One caller.
struct Entry {
    hash: Hash,
    grants: Vec<Grant>,
}

/// All callers.
pub(crate) struct Tokens(Vec<Entry>);

/// What a token may do.
pub(crate) struct Granted<'a>(&'a [Grant]);

impl Tokens {
    pub(crate) fn read(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| TokenFileError::Unreadable { path: path.to_owned(), source })?;
        let (mut names, mut hashes) = (BTreeSet::new(), BTreeSet::new());
        let mut entries = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let entry = parse(line).and_then(|(name, entry)| {
                let new = names.insert(name.to_owned()) && hashes.insert(entry.hash);
                if new { Ok(entry) } else { Err(LineError::Twice) }
            });
            let fail = |problem| TokenFileError::Line { path: path.to_owned(), line: at + 1, problem };
            entries.push(entry.map_err(fail)?);
        }
        if entries.is_empty() {
            return Err(TokenFileError::Empty { path: path.to_owned() });
        }
        Ok(Self(entries))
    }

    /// What this token may do, if it is one of them. All are compared, and each in constant time, so that the time tells
    /// nothing about them.
    pub(crate) fn find(&self, token: &str) -> Option<Granted<'_>> {
        let hash = Hash::of(token);
        let mut found = None;
        for entry in &self.0 {
            if bool::from(entry.hash.0.ct_eq(&hash.0)) {
                found = Some(Granted(&entry.grants));
            }
        }
        found
    }
}

impl Granted<'_> {
    /// Whether one of these roles, or that of the administrator, is granted in the hub.
    pub(crate) fn allows(&self, hub: &HubName, any_of: &[Role]) -> bool {
        self.0.iter().any(|grant| {
            let here = grant.hub.as_ref().is_none_or(|granted| granted == hub);
            here && (grant.role == Role::Admin || any_of.contains(&grant.role))
        })
    }
}

fn parse(line: &str) -> Result<(&str, Entry), LineError> {
    let mut parts = line.split_ascii_whitespace();
    let (Some(name), Some(hash), Some(grants), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(LineError::Parts);
    };
    let hash = Hash::parse(hash).ok_or(LineError::Hash)?;
    let grants = grants.split(',').map(str::parse).collect::<Result<_, GrantError>>()?;
    Ok((name, Entry { hash, grants }))
}

/// A new token, and its line in the file.
pub(crate) fn new_token(name: &str, grants: &[Grant]) -> Result<(String, String), getrandom::Error> {
    struct Secret([u8; 32]);
    impl fmt::Display for Secret {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            // So that scanners for leaked secrets can know it.
            f.write_str("steadfast_")?;
            hex(&self.0, f)
        }
    }
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes)?;
    let token = Secret(bytes).to_string();
    let grants: Vec<_> = grants.iter().map(Grant::to_string).collect();
    let line = format!("{name} {} {}", Hash::of(&token), grants.join(","));
    Ok((token, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(name: &str) -> HubName {
        name.parse().unwrap()
    }

    fn tokens(text: &str) -> Result<Tokens, TokenFileError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Tokens::read(file.path())
    }

    #[test]
    fn a_token_may_do_what_its_line_says_and_nothing_else() {
        let grants = ["read@orders", "worker"].map(|grant| grant.parse().unwrap());
        let (token, line) = new_token("ci", &grants).unwrap();
        let tokens = tokens(&format!("# callers\n\n  {line}\n")).unwrap();
        assert!(tokens.find("steadfast_00").is_none());
        let granted = tokens.find(&token).unwrap();
        assert!(granted.allows(&hub("orders"), &[Role::Read]));
        assert!(granted.allows(&hub("orders"), &[Role::Write, Role::Worker]));
        assert!(!granted.allows(&hub("orders"), &[Role::Write]));
        assert!(!granted.allows(&hub("orders"), &[Role::Admin]));
        assert!(!granted.allows(&hub("bills"), &[Role::Read]));
        assert!(granted.allows(&hub("bills"), &[Role::Worker]));
    }

    #[test]
    fn an_administrator_may_do_everything_in_the_hub_and_nothing_in_others() {
        let (token, line) = new_token("root", &["admin@orders".parse().unwrap()]).unwrap();
        let tokens = tokens(&line).unwrap();
        let granted = tokens.find(&token).unwrap();
        for role in [Role::Read, Role::Write, Role::Worker, Role::Admin] {
            assert!(granted.allows(&hub("orders"), &[role]));
            assert!(!granted.allows(&hub("bills"), &[role]));
        }
    }

    #[test]
    fn a_file_that_cannot_be_meant_is_refused_with_its_line() {
        let (_, good) = new_token("a", &["read".parse().unwrap()]).unwrap();
        let hash = good.split(' ').nth(1).unwrap();
        let other = hash.replace('0', "1");
        for (second, problem) in [
            ("b", LineError::Parts),
            ("b sha256:00 read", LineError::Hash),
            (&format!("b {} read", hash.replace("sha256:", "md5:")), LineError::Hash),
            (&format!("b {hash} read"), LineError::Twice),
            (&format!("a {other} read"), LineError::Twice),
            (&format!("b {other} read more"), LineError::Parts),
            (&format!("b {other} reed"), GrantError::Role("reed".to_owned()).into()),
            (&format!("b {other} read@../x"), "read@../x".parse::<Grant>().unwrap_err().into()),
        ] {
            match tokens(&format!("{good}\n{second}\n")) {
                Err(TokenFileError::Line { line: 2, problem: found, .. }) => assert_eq!(found, problem),
                other => panic!("{second}: {:?}", other.err()),
            }
        }
        assert!(matches!(tokens("# nobody\n"), Err(TokenFileError::Empty { .. })));
    }
}
