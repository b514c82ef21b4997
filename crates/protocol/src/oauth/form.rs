//! Form-encoded parameters, as OAuth reads them: none twice, and empty means absent
//! (RFC 6749 §3.1, §3.2).

use url::form_urlencoded;

use super::error::OAuthError;

/// The most parameters that are read. Real requests have about ten.
const MOST: usize = 100;

/// The parameters of a query or a form body, in order.
#[derive(Debug, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded` text, leaving out parameters without a value.
    pub fn parse(encoded: &[u8]) -> Result<Self, OAuthError> {
        if encoded.split(|byte| *byte == b'&').nth(MOST).is_some() {
            return Err(OAuthError::invalid_request(
                "there are more than 100 parameters",
            ));
        }
        let pairs: Vec<(String, String)> = form_urlencoded::parse(encoded)
            .filter(|(_, value)| !value.is_empty())
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        // The parser puts this character where the bytes were no UTF-8.
        if pairs
            .iter()
            .any(|(name, value)| name.contains('\u{fffd}') || value.contains('\u{fffd}'))
        {
            return Err(OAuthError::invalid_request(
                "a parameter is not valid UTF-8",
            ));
        }
        Ok(Self(pairs))
    }

    /// The value of `name`, which may be given once.
    pub fn one(&self, name: &str) -> Result<Option<&str>, OAuthError> {
        let mut values = self.all(name);
        let first = values.next();
        if values.next().is_some() {
            return Err(OAuthError::invalid_request(
                "a parameter is given more than once",
            ));
        }
        Ok(first)
    }

    /// The value of `name`, which must be given, once.
    pub fn required(&self, name: &str, missing: &'static str) -> Result<&str, OAuthError> {
        self.one(name)?
            .ok_or_else(|| OAuthError::invalid_request(missing))
    }

    /// Every value of `name`.
    pub fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first name that is given more than once, `except` one.
    pub fn repeated(&self, except: &str) -> Option<&str> {
        self.0.iter().enumerate().find_map(|(index, (name, _))| {
            let again = self.0[..index].iter().any(|(earlier, _)| earlier == name);
            (again && name != except).then_some(name.as_str())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_without_a_value_is_absent() {
        let form = Form::parse(b"scope=&state=a%2Bb+c&x").unwrap();
        assert_eq!(form.one("scope").unwrap(), None);
        assert_eq!(form.one("state").unwrap(), Some("a+b c"));
        assert_eq!(form.one("x").unwrap(), None);
    }

    #[test]
    fn a_repeated_parameter_is_refused_and_a_single_one_is_not() {
        let form = Form::parse(b"a=1&b=2&a=1&resource=x&resource=y").unwrap();
        assert!(form.one("a").is_err());
        assert_eq!(form.one("b").unwrap(), Some("2"));
        assert_eq!(form.repeated("resource"), Some("a"));
        assert_eq!(form.all("resource").collect::<Vec<_>>(), ["x", "y"]);
    }

    #[test]
    fn more_than_a_hundred_parameters_are_refused_unread() {
        let hundred: Vec<String> = (0..100).map(|n| format!("p{n}=v")).collect();
        assert!(Form::parse(hundred.join("&").as_bytes()).is_ok());
        assert!(Form::parse(format!("{}&more=v", hundred.join("&")).as_bytes()).is_err());
        assert!(Form::parse("&".repeat(65_536).as_bytes()).is_err());
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        assert!(Form::parse(b"state=%ff").is_err());
        assert!(Form::parse(b"stat%ff=x").is_err());
        assert!(Form::parse(b"state=%c3%bf").is_ok());
    }
}
