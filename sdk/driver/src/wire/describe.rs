//! Descriptions of plugins and stores, as messages.

use super::message::{Malformed, json, required};
use super::proto;
use crate::capabilities::Capabilities;
use crate::driver::{Driver, Setting, SettingKind, Store};

/// The description of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginDescription {
    pub name: String,
    pub version: String,
    pub drivers: Vec<DriverDescription>,
}

/// A driver without its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverDescription {
    pub name: String,
    pub stores: Vec<Store>,
    pub settings: Vec<Setting>,
    /// The settings of its connections.
    pub connection: Vec<Setting>,
}

impl From<&Driver> for DriverDescription {
    fn from(driver: &Driver) -> Self {
        DriverDescription {
            name: driver.name.to_owned(),
            stores: driver.stores().collect(),
            settings: driver.settings.to_vec(),
            connection: driver.connection.to_vec(),
        }
    }
}

impl From<&PluginDescription> for proto::Plugin {
    fn from(plugin: &PluginDescription) -> Self {
        proto::Plugin {
            name: plugin.name.clone(),
            version: plugin.version.clone(),
            drivers: plugin.drivers.iter().map(proto::Driver::from).collect(),
        }
    }
}

impl TryFrom<proto::Plugin> for PluginDescription {
    type Error = Malformed;

    fn try_from(plugin: proto::Plugin) -> Result<Self, Malformed> {
        if plugin.name.is_empty() {
            return Err(Malformed::missing("name"));
        }
        let drivers = plugin.drivers.into_iter().map(DriverDescription::try_from);
        Ok(PluginDescription {
            name: plugin.name,
            version: plugin.version,
            drivers: drivers.collect::<Result<_, _>>()?,
        })
    }
}

/// Names of drivers are used in configurations, in lists and in metrics.
fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

impl From<&DriverDescription> for proto::Driver {
    fn from(driver: &DriverDescription) -> Self {
        proto::Driver {
            name: driver.name.clone(),
            stores: driver.stores.iter().map(|store| proto::Store::from(*store).into()).collect(),
            settings: driver.settings.iter().map(proto::Setting::from).collect(),
            connection: driver.connection.iter().map(proto::Setting::from).collect(),
        }
    }
}

impl TryFrom<proto::Driver> for DriverDescription {
    type Error = Malformed;

    fn try_from(driver: proto::Driver) -> Result<Self, Malformed> {
        if !is_name(&driver.name) {
            let name = driver.name.chars().take(64).collect::<String>();
            return Err(Malformed::new(format!(
                "`drivers.name` is {name:?}, expected 1 to 63 of `a` to `z`, `0` to `9` and `-`"
            )));
        }
        let stores = driver.stores().map(Store::try_from).collect::<Result<_, _>>()?;
        let settings = |settings: Vec<proto::Setting>| {
            settings.into_iter().map(Setting::try_from).collect::<Result<Vec<_>, Malformed>>()
        };
        let (connection, settings) = (settings(driver.connection)?, settings(driver.settings)?);
        Ok(DriverDescription { name: driver.name, stores, settings, connection })
    }
}

impl From<Store> for proto::Store {
    fn from(store: Store) -> Self {
        match store {
            Store::Secure => proto::Store::Secure,
            Store::Event => proto::Store::Event,
            Store::Model => proto::Store::Model,
            Store::Error => proto::Store::Error,
        }
    }
}

impl TryFrom<proto::Store> for Store {
    type Error = Malformed;

    fn try_from(store: proto::Store) -> Result<Self, Malformed> {
        match store {
            proto::Store::Secure => Ok(Store::Secure),
            proto::Store::Event => Ok(Store::Event),
            proto::Store::Model => Ok(Store::Model),
            proto::Store::Error => Ok(Store::Error),
            proto::Store::Unspecified => Err(Malformed::new("the kind of store is unknown")),
        }
    }
}

const SETTING_KINDS: [(SettingKind, proto::SettingKind); 7] = [
    (SettingKind::Text, proto::SettingKind::Text),
    (SettingKind::Number, proto::SettingKind::Number),
    (SettingKind::Bool, proto::SettingKind::Bool),
    (SettingKind::List, proto::SettingKind::List),
    (SettingKind::Table, proto::SettingKind::Table),
    (SettingKind::Secret, proto::SettingKind::Secret),
    (SettingKind::Connection, proto::SettingKind::Connection),
];

impl From<&Setting> for proto::Setting {
    fn from(setting: &Setting) -> Self {
        let kind = SETTING_KINDS.iter().find(|(kind, _)| *kind == setting.kind);
        proto::Setting {
            name: setting.name.clone().into_owned(),
            kind: kind.map_or(proto::SettingKind::Text, |(_, kind)| *kind).into(),
            expected: setting.expected.clone().into_owned(),
            optional: setting.optional,
            default_json: setting.default.clone().map(Into::into),
        }
    }
}

impl TryFrom<proto::Setting> for Setting {
    type Error = Malformed;

    fn try_from(setting: proto::Setting) -> Result<Self, Malformed> {
        let unknown = || Malformed::new(format!("setting `{}` has an unknown kind", setting.name));
        let kind = proto::SettingKind::try_from(setting.kind).map_err(|_| unknown())?;
        let kind = required("kind", SETTING_KINDS.iter().find(|(_, known)| *known == kind))?.0;
        if setting.name.is_empty() {
            return Err(Malformed::missing("settings.name"));
        }
        if let Some(default) = &setting.default_json {
            json("settings.default_json", default.clone())?;
        }
        Ok(Setting {
            name: setting.name.into(),
            kind,
            expected: setting.expected.into(),
            optional: setting.optional,
            default: setting.default_json.map(Into::into),
        })
    }
}

impl From<Capabilities> for proto::Capabilities {
    fn from(capabilities: Capabilities) -> Self {
        let Capabilities { durable, shared, atomic_batch, ordered_claims, readable, event_bytes_max, batch_bytes_max } =
            capabilities;
        proto::Capabilities {
            durable,
            shared,
            atomic_batch,
            ordered_claims,
            readable,
            event_bytes_max,
            batch_bytes_max,
        }
    }
}

impl From<proto::Capabilities> for Capabilities {
    /// A limit of 0 means that the driver has none.
    fn from(capabilities: proto::Capabilities) -> Self {
        let limit = |limit: u64, least: u64| if limit == 0 { least } else { limit };
        Capabilities {
            durable: capabilities.durable,
            shared: capabilities.shared,
            atomic_batch: capabilities.atomic_batch,
            ordered_claims: capabilities.ordered_claims,
            readable: capabilities.readable,
            event_bytes_max: limit(capabilities.event_bytes_max, Capabilities::LEAST.event_bytes_max),
            batch_bytes_max: limit(capabilities.batch_bytes_max, Capabilities::LEAST.batch_bytes_max),
        }
    }
}
