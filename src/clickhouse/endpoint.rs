//! Where ClickHouse is, and as whom to speak to it.

use percent_encoding::percent_decode_str;

/// A ClickHouse HTTP interface. Its `Debug` and `Display` never show the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http://host:port`.
    pub url: String,
    /// The user; empty: ClickHouse's default.
    pub user: String,
    /// The password.
    pub password: String,
    /// The database that holds tally's tables.
    pub database: String,
}

/// The text is not a ClickHouse address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// Not `http://…`.
    #[error("a ClickHouse address starts with http:// (put a TLS proxy in between where that is not enough)")]
    Scheme,
    /// No host, or something that is neither path nor query after it.
    #[error("a ClickHouse address looks like http://user:password@host:8123/?database=tally")]
    Shape,
    /// A database's name that would need quoting.
    #[error("the database's name may hold letters, digits and underscores only")]
    Database,
}

impl Endpoint {
    /// Reads `http://user:password@host:port/?database=tally`; user, password, port and database may be left out, and
    /// percent-encoding is undone.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let rest = text.trim().strip_prefix("http://").ok_or(EndpointError::Scheme)?;
        let (address, query) = rest.split_once('?').unwrap_or((rest, ""));
        let address = address.trim_end_matches('/');
        let (login, host) = address.rsplit_once('@').unwrap_or(("", address));
        if host.is_empty() || host.contains('/') || host.contains(char::is_whitespace) {
            return Err(EndpointError::Shape);
        }
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let mut endpoint = Self {
            url: if has_port(host) { format!("http://{host}") } else { format!("http://{host}:8123") },
            user: decoded(user)?,
            password: decoded(password)?,
            database: "tally".to_owned(),
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match &*name {
                "database" => endpoint.database = value.into_owned(),
                "user" => endpoint.user = value.into_owned(),
                "password" => endpoint.password = value.into_owned(),
                _ => return Err(EndpointError::Shape),
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if endpoint.database.is_empty() || !endpoint.database.chars().all(plain) {
            return Err(EndpointError::Database);
        }
        Ok(endpoint)
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/?database={}", self.url, self.database)
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint")
            .field("url", &self.url)
            .field("user", &self.user)
            .field("password", &if self.password.is_empty() { "" } else { "…" })
            .field("database", &self.database)
            .finish()
    }
}

fn has_port(host: &str) -> bool {
    let after_address = host.rsplit_once(']').map_or(host, |(_, after)| after);
    after_address.contains(':')
}

fn decoded(text: &str) -> Result<String, EndpointError> {
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| EndpointError::Shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_part() {
        let endpoint = Endpoint::parse("http://me:p%40ss@[::1]:9000/?database=other").expect("fits");
        assert_eq!(endpoint.url, "http://[::1]:9000");
        assert_eq!((&*endpoint.user, &*endpoint.password, &*endpoint.database), ("me", "p@ss", "other"));
        let plain = Endpoint::parse("http://db").expect("fits");
        assert_eq!((&*plain.url, &*plain.user, &*plain.database), ("http://db:8123", "", "tally"));
    }

    #[test]
    fn refuses_what_it_can_not_use() {
        assert_eq!(Endpoint::parse("https://db"), Err(EndpointError::Scheme));
        assert_eq!(Endpoint::parse("http://"), Err(EndpointError::Shape));
        assert_eq!(Endpoint::parse("http://db/path"), Err(EndpointError::Shape));
        assert_eq!(Endpoint::parse("http://db/?async_insert=1"), Err(EndpointError::Shape));
        assert_eq!(Endpoint::parse("http://db/?database=a`b"), Err(EndpointError::Database));
    }

    #[test]
    fn never_shows_the_password() {
        let endpoint = Endpoint::parse("http://me:secret@db").expect("fits");
        assert!(!format!("{endpoint:?} {endpoint}").contains("secret"));
    }
}
