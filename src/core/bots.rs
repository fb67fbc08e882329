//! Robots that say so in their user agent: crawlers, link previews, monitors, HTTP libraries.
//!
//! The list is short on purpose. A robot that poses as a browser is not found by any list, and a long one of names
//! catches people: lists that are passed around flag the browser of `DuckDuckGo`, Cubot's telephones and the browsers inside
//! of Spotify and Snapchat. So a name stands here if nobody browses with it, and most need not: robots are called bots,
//! crawlers and spiders.

/// What the names of robots end in: `Googlebot/2.1`, `AdsBot-Google`, `Baiduspider`, `UptimeRobot`.
const WORDS: [&str; 6] = ["bot", "bots", "crawler", "crawl", "spider", "scraper"];
/// Words that only look like it: makers of telephones.
const NOT_WORDS: [&str; 2] = ["cubot", "idbot"];

/// Where to complain: who says that in a user agent is no browser.
const ADDRESSES: [&str; 2] = ["http://", "https://"];

/// Names of crawlers, link previews and monitors, in lower case, anywhere in the user agent.
const CRAWLERS: [&str; 44] = [
    // Link previews. WhatsApp's and Viber's previews have no browser's name in front; see `PREVIEWS`.
    "facebookexternalhit",
    "facebookcatalog",
    "meta-externalagent",
    "meta-externalfetcher",
    "skypeuripreview",
    "microsoftpreview",
    "bingpreview",
    "google-pagerenderer",
    "google-inspectiontool",
    "google web preview",
    "mediapartners-google",
    "feedfetcher-google",
    "googleother",
    "apis-google",
    "iframely",
    "embedly",
    "snap url preview",
    "pinterest/0.",
    "flipboardproxy",
    "vkshare",
    "slurp",
    // Monitors and scanners.
    "pingdom",
    "statuscake",
    "site24x7",
    "newrelicsynthetics",
    "datadogsynthetics",
    "lighthouse",
    "gtmetrix",
    "ptst/",
    "nagios",
    "check_http",
    "zabbix",
    "checkly",
    "better uptime",
    "censys",
    "nmap scripting engine",
    "zgrab",
    "masscan",
    "nuclei",
    // Archives and link checkers.
    "archive.org",
    "heritrix",
    "httrack",
    "w3c_validator",
    "linkchecker",
];

/// Browsers without a person in front of them: tests, and scripts that drive one.
const AUTOMATED: [&str; 6] =
    ["headlesschrome", "phantomjs", "puppeteer", "playwright", "selenium", "prerender"];

/// Link previews whose user agent begins with their name, in lower case. The browsers inside of these applications have a
/// browser's name in front.
const PREVIEWS: [&str; 2] = ["whatsapp/", "viber/"];

/// Programs and libraries whose user agent begins with their name, in lower case.
const LIBRARIES: [&str; 31] = [
    "curl/",
    "wget/",
    "python-",
    "python/",
    "aiohttp/",
    "httpx/",
    "go-http-client/",
    "java/",
    "java-http-client/",
    "apache-httpclient/",
    "okhttp/",
    "jakarta",
    "libwww-perl/",
    "lwp::",
    "lwp-",
    "perl/",
    "php/",
    "guzzlehttp/",
    "symfony",
    "ruby",
    "faraday",
    "axios/",
    "node-fetch",
    "node",
    "undici",
    "got (",
    "postmanruntime/",
    "insomnia/",
    "httpie/",
    "scrapy/",
    "dart/",
];

/// Whether the user agent is a robot's that says so. No user agent at all is nobody's.
#[must_use]
pub fn is_bot(user_agent: &str) -> bool {
    let agent = user_agent.to_ascii_lowercase();
    LIBRARIES.iter().any(|prefix| agent.starts_with(prefix))
        || ADDRESSES.iter().chain(&AUTOMATED).any(|name| agent.contains(name))
        || names_crawler(&agent)
}

/// Whether the user agent is a crawler's, a monitor's or a link preview's that says so. HTTP libraries are not among
/// them: networks report conversions with these.
#[must_use]
pub fn is_crawler(user_agent: &str) -> bool {
    names_crawler(&user_agent.to_ascii_lowercase())
}

fn names_crawler(agent: &str) -> bool {
    PREVIEWS.iter().any(|prefix| agent.starts_with(prefix))
        || agent.split(|c: char| !c.is_ascii_alphabetic()).any(is_word)
        || CRAWLERS.iter().any(|name| agent.contains(name))
}

/// Whether a run of letters is a robot's name: it ends in one of the words.
fn is_word(letters: &str) -> bool {
    WORDS.iter().any(|word| letters.ends_with(word)) && !NOT_WORDS.contains(&letters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn robots_that_say_so_are_found() {
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm) Chrome/116.0.1938.76 Safari/537.36",
            "AdsBot-Google (+http://www.google.com/adsbot.html)",
            "Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
            "Mozilla/5.0 (compatible; Baiduspider/2.0; +http://www.baidu.com/search/spider.html)",
            "Mozilla/5.0 (compatible; Yahoo! Slurp; http://help.yahoo.com/help/us/ysearch/slurp)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "WhatsApp/2.23.20.0",
            "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)",
            "Twitterbot/1.0",
            "TelegramBot (like TwitterBot)",
            "Mozilla/5.0 (compatible; Discordbot/2.0; +https://discordapp.com)",
            "LinkedInBot/1.0 (compatible; Mozilla/5.0; Apache-HttpClient +http://www.linkedin.com)",
            "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
            "Mozilla/5.0 (compatible; UptimeRobot/2.0; http://www.uptimerobot.com/)",
            "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; GPTBot/1.2; +https://openai.com/gptbot)",
            "Mozilla/5.0 (compatible; CCBot/2.0; https://commoncrawl.org/faq/)",
            "curl/8.5.0",
            "Wget/1.21.4",
            "python-requests/2.31.0",
            "Go-http-client/1.1",
            "okhttp/4.12.0",
            "Java/17.0.9",
            "Mozilla/5.0 (compatible; Qwantify/2.2w; +https://www.qwant.com/)/*",
        ] {
            assert!(is_bot(agent), "{agent}");
        }
    }

    #[test]
    fn who_reports_conversions_is_no_crawler() {
        for agent in [
            "",
            "curl/8.5.0",
            "python-requests/2.31.0",
            "okhttp/4.12.0",
            "Voluum/1.0 (+https://network.example/postbacks)",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/120.0.0.0 Safari/537.36",
        ] {
            assert!(!is_crawler(agent), "{agent}");
        }
        for agent in [
            "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
            "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)",
            "WhatsApp/2.23.20.0",
            "Mozilla/5.0 (Windows NT 6.1; WOW64) SkypeUriPreview Preview/0.5",
            "Twitterbot/1.0",
        ] {
            assert!(is_crawler(agent), "{agent}");
        }
    }

    #[test]
    fn people_are_not_taken_for_robots() {
        for agent in [
            "",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
            "Mozilla/5.0 (X11; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
            "Mozilla/5.0 (Linux; Android 9; CUBOT_X18_Plus) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/92.0.4515.159 Mobile Safari/537.36",
            "Mozilla/5.0 (Linux; Android 12; CUBOT P50) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/103.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 [FBAN/FBIOS;FBAV/470.0.0]",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Instagram 334.0.0",
            "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0 Mobile DuckDuckGo/5 Safari/537.36",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Snapchat/12.90",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 [Pinterest/iOS]",
            "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 Chrome/125.0 Mobile Safari/537.36 WhatsApp/2.24",
            "Opera/9.80 (Android; Opera Mini/36.2) Presto/2.12.423 Version/12.16",
        ] {
            assert!(!is_bot(agent), "{agent}");
        }
    }
}
