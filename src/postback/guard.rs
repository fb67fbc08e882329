//! Who may be spoken to. A name is resolved once; what it resolved to is checked, and exactly that is connected to, so
//! that no later answer of the same name can lead elsewhere.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;
use ipnet::IpNet;
use url::{Host, Url};

use crate::core::webhook::is_refused;

/// How long a name may take to resolve.
const RESOLVE_WITHIN: Duration = Duration::from_secs(5);
/// Addresses of one name that are looked at; a name with more is refused.
const ADDRESSES_MAX: usize = 64;

/// Turns names into addresses.
pub trait Resolve: Send + Sync + 'static {
    /// All addresses of a name.
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// Why a URL is not called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefused {
    /// Not a URL that can be called.
    #[error("it is not an http:// or https:// URL with a plain host and without credentials")]
    Invalid,
    /// Not encrypted, and the address is not one that the operator opened.
    #[error("it is not https")]
    Plain,
    /// The address, or one of the name's addresses, must not be reached.
    #[error("its host is, or resolves to, an address that is not public")]
    Address,
    /// The name has no address now.
    #[error("its host can't be resolved")]
    Unresolved,
}

impl UrlRefused {
    /// The error's name in the log of deliveries.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid_url",
            Self::Plain => "https_required",
            Self::Address => "refused_address",
            Self::Unresolved => "dns",
        }
    }
}

/// Decides who may be spoken to.
#[derive(Clone)]
pub struct Guard {
    allow: Arc<[IpNet]>,
    resolver: Arc<dyn Resolve>,
}

impl Guard {
    /// Nobody but public addresses by https, and whom the operator allows.
    #[must_use]
    pub fn new(allow: &[IpNet], resolver: impl Resolve) -> Self {
        Self { allow: allow.into(), resolver: Arc::new(resolver) }
    }

    /// Whether a goal's owner may name this URL, macros in it. A name that has no address yet may be given one: every
    /// attempt looks again.
    pub(super) async fn vet_template(&self, url: &str) -> Result<(), UrlRefused> {
        let url = parse(url)?;
        match self.vet(&url).await {
            Err(UrlRefused::Unresolved) if url.scheme() == "https" => Ok(()),
            outcome => outcome.map(|_| ()),
        }
    }

    /// The addresses to connect to: every address of the name, if all of them may be reached.
    pub(super) async fn vet(&self, url: &Url) -> Result<Vec<SocketAddr>, UrlRefused> {
        let port = url.port_or_known_default().ok_or(UrlRefused::Invalid)?;
        let addresses = match url.host().ok_or(UrlRefused::Invalid)? {
            Host::Ipv4(v4) => vec![IpAddr::V4(v4)],
            Host::Ipv6(v6) => vec![IpAddr::V6(v6)],
            Host::Domain(name) => {
                let answer = self.resolver.resolve(name.to_owned());
                match tokio::time::timeout(RESOLVE_WITHIN, answer).await {
                    Ok(Ok(addresses)) if !addresses.is_empty() => addresses,
                    _ => return Err(UrlRefused::Unresolved),
                }
            }
        };
        let allowed = |address: &IpAddr| self.allow.iter().any(|net| net.contains(&address.to_canonical()));
        if addresses.len() > ADDRESSES_MAX
            || addresses.iter().any(|address| is_refused(*address) && !allowed(address))
        {
            return Err(UrlRefused::Address);
        }
        if url.scheme() != "https" && !addresses.iter().all(allowed) {
            return Err(UrlRefused::Plain);
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
    }
}

/// Reads a URL as browsers do, which tells every way of writing an address: `0x7f.1` is 127.0.0.1.
pub(super) fn parse(text: &str) -> Result<Url, UrlRefused> {
    let url = Url::parse(text).map_err(|_| UrlRefused::Invalid)?;
    let plain_host = match url.host() {
        Some(Host::Domain(name)) => {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        }
        Some(_) => true,
        None => false,
    };
    let scheme = matches!(url.scheme(), "http" | "https");
    let bare = url.username().is_empty() && url.password().is_none() && url.port() != Some(0);
    if scheme && plain_host && bare { Ok(url) } else { Err(UrlRefused::Invalid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers in turn, then with the last answer for ever.
    struct Scripted(&'static [&'static str]);

    impl Resolve for Scripted {
        fn resolve(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let found = self.0.iter().map(|text| text.parse().expect("an address")).collect();
            Box::pin(async move { Ok(found) })
        }
    }

    async fn vet(url: &str, allow: &str, names: &'static [&'static str]) -> Result<(), UrlRefused> {
        let allow: Vec<IpNet> = allow.split_terminator(',').map(|net| net.parse().expect("a net")).collect();
        Guard::new(&allow, Scripted(names)).vet_template(url).await
    }

    #[tokio::test]
    async fn only_public_addresses_by_https() {
        let public: &[&str] = &["1.1.1.1", "2606:4700::1111"];
        assert_eq!(vet("https://shop.example:8443/pb?c={click_id}", "", public).await, Ok(()));
        assert_eq!(vet("http://shop.example/", "", public).await, Err(UrlRefused::Plain));
        assert_eq!(vet("https://shop.example/", "", &[]).await, Ok(()), "no address yet");
        for (url, names) in [
            ("https://127.0.0.1/", public),
            ("https://0x7f.1/", public),
            ("https://2130706433/", public),
            ("https://017700000001/", public),
            ("https://[::1]/", public),
            ("https://[::ffff:10.0.0.1]/", public),
            ("https://[64:ff9b::a9fe:a9fe]/", public),
            ("https://169.254.169.254/latest/meta-data/", public),
            ("https://localhost/", &["127.0.0.1"]),
            ("https://mixed.example/", &["1.1.1.1", "10.0.0.1"]),
            ("https://mapped.example/", &["::ffff:192.168.0.1"]),
        ] {
            assert_eq!(vet(url, "", names).await, Err(UrlRefused::Address), "{url}");
        }
        for url in [
            "ftp://shop.example/",
            "https://u:p@shop.example/",
            "https://u@shop.example/",
            "https://{order_id}.example/",
            "/hook",
            "",
            "https://shop.example:0/",
        ] {
            assert_eq!(vet(url, "", public).await, Err(UrlRefused::Invalid), "{url}");
        }
    }

    #[tokio::test]
    async fn an_operator_opens_addresses_and_plain_http_to_them() {
        let here: &[&str] = &["127.0.0.1"];
        assert_eq!(vet("http://127.0.0.1:9000/", "127.0.0.0/8", here).await, Ok(()));
        assert_eq!(vet("http://[::ffff:127.0.0.1]:9000/", "127.0.0.0/8", here).await, Ok(()));
        assert_eq!(vet("http://localhost/", "127.0.0.1/32", here).await, Ok(()));
        assert_eq!(vet("http://10.0.0.1/", "127.0.0.0/8", here).await, Err(UrlRefused::Address));
        assert_eq!(vet("http://1.1.1.1/", "127.0.0.0/8", here).await, Err(UrlRefused::Plain));
        assert_eq!(vet("http://nowhere.example/", "127.0.0.0/8", &[]).await, Err(UrlRefused::Unresolved));
    }
}
