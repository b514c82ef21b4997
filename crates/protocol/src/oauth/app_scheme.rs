//! Schemes of links that open an app (RFC 8252 §7.1), and those that never may be one.

use std::fmt;

use super::known_clients;

/// The longest scheme, in bytes.
const LONGEST: usize = 64;

/// Schemes that a browser or an operating system acts on by itself: it runs or shows what stands in
/// the link, opens a file, a setting or a connection, dials, or installs. A link of these is no way
/// to an app, whatever the app says, and an answer in it would be an instruction to the system.
/// Neither the table of known clients nor an operator can let one in.
const RUN_BY_THE_SYSTEM: &[&str] = &[
    // Browsers: code, documents made from the link, and pages of their own.
    "about",
    "blob",
    "brave",
    "cid",
    "content",
    "data",
    "edge",
    "feed",
    "filesystem",
    "http",
    "https",
    "jar",
    "javascript",
    "livescript",
    "mhtml",
    "mid",
    "mk",
    "mocha",
    "opera",
    "res",
    "resource",
    "vbscript",
    "view-source",
    "vivaldi",
    "wyciwyg",
    "ws",
    "wss",
    // Names that say what something is, not where.
    "dav",
    "davs",
    "dict",
    "info",
    "oid",
    "tag",
    "urn",
    "uuid",
    // Files, shares and shells.
    "admin",
    "afp",
    "archive",
    "burn",
    "cifs",
    "computer",
    "dns",
    "file",
    "ftp",
    "ftps",
    "git",
    "gopher",
    "imap",
    "jnlp",
    "ldap",
    "ldaps",
    "local",
    "mtp",
    "nfs",
    "network",
    "nntp",
    "news",
    "pop",
    "rdp",
    "recent",
    "rlogin",
    "rsync",
    "rtsp",
    "scp",
    "sftp",
    "shell",
    "smb",
    "snews",
    "ssh",
    "svn",
    "telnet",
    "tftp",
    "tn3270",
    "trash",
    "vnc",
    "wais",
    // Calls, mail, messages and places.
    "callto",
    "facetime",
    "facetime-audio",
    "geo",
    "im",
    "irc",
    "ircs",
    "mailto",
    "maps",
    "mms",
    "mmst",
    "mmsu",
    "sip",
    "sips",
    "sms",
    "smsto",
    "tel",
    "telprompt",
    "webcal",
    "xmpp",
    // Windows.
    "bingmaps",
    "bingnews",
    "bingweather",
    "calculator",
    "com.microsoft.3dviewer",
    "com.microsoft.builder3dviewer",
    "explorer",
    "feedback-hub",
    "hcp",
    "insiderhub",
    "knownfolder",
    "onenote",
    "onenote-cmd",
    "outlookcal",
    "outlookmail",
    "search",
    "wsh",
    "zune",
    // macOS and iOS.
    "app-prefs",
    "app-settings",
    "applescript",
    "calshow",
    "help",
    "macappstore",
    "macappstores",
    "message",
    "photos",
    "prefs",
    "shortcuts",
    "workflow",
    "x-help-script",
    "x-man-page",
    "x-radar",
    "x-terminal",
    "x-web-search",
    // Android and Linux.
    "apt",
    "appstream",
    "flatpak",
    "ghelp",
    "intent",
    "magnet",
    "man",
    "market",
    "snap",
];

/// What the names of further such schemes begin with: whole families, to which members are added.
const FAMILIES_OF_THE_SYSTEM: &[&str] = &[
    "android-",
    "chrome",
    "com-apple",
    "com.apple.",
    "itms",
    "itunes",
    "microsoft",
    "moz-",
    "ms-",
    "search-",
    "web+",
    "windows",
    "x-apple",
    "xbox",
];

/// The scheme of an app's links, written as it is in them, that neither browsers nor operating
/// systems act on by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppScheme(String);

/// Why a text is not the scheme of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAppScheme {
    /// It is no scheme, or not in lower case.
    Spelling,
    /// A browser or operating system acts on it.
    OfTheSystem,
}

impl AppScheme {
    /// Reads a scheme, without the colon.
    pub fn parse(text: &str) -> Result<Self, NoAppScheme> {
        // The families too are known in any case of letters, so that the reason is the true one.
        let lower = text.to_ascii_lowercase();
        let is_family = |family: &&str| lower.starts_with(*family);
        if RUN_BY_THE_SYSTEM.contains(&&*lower) || FAMILIES_OF_THE_SYSTEM.iter().any(is_family) {
            return Err(NoAppScheme::OfTheSystem);
        }
        let legal =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
        let is_scheme = text.len() <= LONGEST
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(legal);
        if is_scheme {
            Ok(Self(lower))
        } else {
            Err(NoAppScheme::Spelling)
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an app that people have is known by it.
    pub fn is_known(&self) -> bool {
        known_clients::is_app_scheme(&self.0)
    }

    /// Whether it is made from a domain name, whose owner then owns it (RFC 8252 §7.1).
    pub fn is_reversed_domain(&self) -> bool {
        // No domain ends in one of these, and what begins like this is to be taken for a website.
        let looks_like_a_site = |first: &str| ["http", "https", "www"].contains(&first);
        let is_whole = self.0.split('.').all(|label| !label.is_empty());
        self.0
            .split_once('.')
            .is_some_and(|(first, _)| is_whole && !looks_like_a_site(first))
    }
}

impl fmt::Display for AppScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case 03: never what a browser or the system runs itself, in no spelling.
    #[test]
    fn what_browsers_and_systems_act_on_is_never_the_scheme_of_an_app() {
        for scheme in RUN_BY_THE_SYSTEM
            .iter()
            .chain(FAMILIES_OF_THE_SYSTEM)
            .chain(&[
                "JavaScript",
                "ms-msdt",
                "MS-Settings",
                "search-ms",
                "ms-appinstaller",
                "microsoft-edge",
                "microsoft.windows.camera",
                "windowsdefender",
                "com.apple.tv",
                "chrome-extension",
                "moz-extension",
                "android-app",
                "itms-services",
                "x-apple.systempreferences",
                "x-apple-helpbasic",
                "web+app",
                "xbox-tcui",
            ])
        {
            let refused = AppScheme::parse(scheme);
            assert_eq!(refused, Err(NoAppScheme::OfTheSystem), "{scheme}");
        }
        for app in [
            "raycast",
            "myapp",
            "com.example.app",
            "x-example-client",
            "a1+b-c.d",
        ] {
            assert_eq!(AppScheme::parse(app).unwrap().as_str(), app);
        }
    }

    #[test]
    fn a_scheme_is_written_as_links_have_it() {
        let longest = "a".repeat(LONGEST);
        assert!(AppScheme::parse(&longest).is_ok());
        for bad in [
            "",
            "1app",
            "My-App",
            "my app",
            "app:",
            "app://",
            "äpp",
            "a_b",
            &format!("{longest}a"),
        ] {
            assert_eq!(AppScheme::parse(bad), Err(NoAppScheme::Spelling), "{bad:?}");
        }
    }

    #[test]
    fn a_domain_owns_a_scheme_that_is_made_from_it_and_no_site_does() {
        for (scheme, owned) in [
            ("com.example.app", true),
            ("com.example", true),
            ("raycast", false),
            ("https.claude.ai", false),
            ("www.claude.ai", false),
        ] {
            let parsed = AppScheme::parse(scheme);
            assert_eq!(
                parsed.is_ok_and(|it| it.is_reversed_domain()),
                owned,
                "{scheme}"
            );
        }
    }
}
