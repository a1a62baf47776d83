//! Horizon: its login form offers the ways to sign in, and its answer to each is a redirect to Keystone.

use url::Url;

use super::html::{self, Tag};
use super::{MOST_CHOICES, Visit, cookies, goes_to, websso};
use crate::api::Choice;
use crate::http_client::Answer;
use crate::model::page_words;

/// Where Horizon's login page is, by how it is deployed: at the root, by packages, by devstack.
const LOGIN_PAGES: [&str; 3] = ["/auth/login/", "/horizon/auth/login/", "/dashboard/auth/login/"];
/// Keystone's own users, by a password: not ours to offer.
const CREDENTIALS: &str = "credentials";

impl Visit<'_> {
    /// The page that an address led to, else Horizon's usual places on the same server.
    pub(super) async fn horizon(&mut self, at: &Url, answer: &Answer) -> Vec<Choice> {
        if let Some(form) = Form::of(answer) {
            return self.choices(at, answer, &form).await;
        }
        for page in LOGIN_PAGES {
            let Ok(url) = at.join(page) else { continue };
            match self.open(url).await {
                Ok(super::Reached::Keystone(choice)) => return vec![choice],
                Ok(super::Reached::Page(at, answer)) => {
                    if let Some(form) = Form::of(&answer) {
                        return self.choices(&at, &answer, &form).await;
                    }
                }
                Err(_) => {}
            }
        }
        Vec::new()
    }

    /// Sends the form once for each way and region, as a browser would. Nobody is signed in by it.
    async fn choices(&mut self, at: &Url, answer: &Answer, form: &Form) -> Vec<Choice> {
        let mut found: Vec<Choice> = Vec::new();
        let Ok(action) = at.join(&form.action) else { return found };
        // A form that sends elsewhere is none of Horizon's.
        if action.origin() != at.origin() {
            return found;
        }
        let cookies = cookies(&answer.headers);
        let of_region = |region: &(String, String)| -> Vec<_> {
            form.ways.iter().map(|way| (way.clone(), region.clone())).collect()
        };
        let asked: Vec<_> = form.regions.iter().flat_map(of_region).take(MOST_CHOICES).collect();
        for ((way, name), (region, region_name)) in asked {
            let fields = [
                ("csrfmiddlewaretoken", form.token.as_str()),
                ("auth_type", way.as_str()),
                ("region", region.as_str()),
            ];
            let Ok(answer) = self.post(&action, at, &cookies, &fields).await else { continue };
            let Some(next) = goes_to(&action, &answer) else { continue };
            let label = if form.regions.len() > 1 { format!("{name}, {region_name}") } else { name.clone() };
            let Some(choice) = websso(&next, &label) else { continue };
            if self.follows(at, &next).await.is_ok() && !found.iter().any(|known| known.is_same(&choice)) {
                found.push(choice);
            }
        }
        found
    }
}

/// Horizon's login form.
struct Form {
    action: String,
    token: String,
    /// Values and texts.
    ways: Vec<(String, String)>,
    regions: Vec<(String, String)>,
}

impl Form {
    /// The form of a page that offers another way than a password.
    fn of(answer: &Answer) -> Option<Self> {
        let tags = html::tags(&answer.body);
        let is_form = |tag: &Tag| {
            tag.name == "form" && tag.get("method").is_some_and(|method| method.eq_ignore_ascii_case("post"))
        };
        let mut starts = tags.iter().enumerate().filter(|(_, tag)| is_form(tag)).map(|(place, _)| place);
        starts.find_map(|start| Self::read(&tags[start..]))
    }

    fn read(tags: &[Tag]) -> Option<Self> {
        let end = tags.iter().position(|tag| tag.name == "/form").unwrap_or(tags.len());
        let (form, fields) = tags[..end].split_first()?;
        let hidden = |name: &str| {
            let field = fields.iter().find(|tag| tag.name == "input" && tag.get("name") == Some(name))?;
            Some(field.get("value").unwrap_or_default().to_owned())
        };
        let ways: Vec<_> =
            options(fields, "auth_type").into_iter().filter(|(way, _)| way != CREDENTIALS).collect();
        if ways.is_empty() {
            return None;
        }
        let mut regions = options(fields, "region");
        if regions.is_empty() {
            regions.push((hidden("region").unwrap_or_else(|| "default".into()), String::new()));
        }
        Some(Self {
            action: form.get("action").unwrap_or_default().to_owned(),
            token: hidden("csrfmiddlewaretoken").unwrap_or_default(),
            ways,
            regions,
        })
    }
}

fn options(fields: &[Tag], name: &str) -> Vec<(String, String)> {
    let Some(start) = fields.iter().position(|tag| tag.name == "select" && tag.get("name") == Some(name))
    else {
        return Vec::new();
    };
    let within = fields[start..].iter().take_while(|tag| tag.name != "/select");
    within
        .filter(|tag| tag.name == "option")
        .map(|tag| {
            let value = tag.get("value").map_or_else(|| tag.text.trim().to_owned(), str::to_owned);
            (value, page_words(&tag.text))
        })
        .collect()
}
