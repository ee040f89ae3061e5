# What /etc/rc.common, procd.sh, jshn.sh and the UCI functions give an init script, as far as ours uses them: what it tells procd
# is written down, one line each, its data as JSON.
json=
after_value=
json_comma() { [ -z "$after_value" ] || json="$json,"; after_value=1; }
json_key() { json_comma; [ -z "$1" ] || json="$json\"$1\":"; }
json_add_object() { json_key "$1"; json="$json{"; after_value=; }
json_close_object() { json="$json}"; after_value=1; }
json_add_array() { json_key "$1"; json="$json["; after_value=; }
json_close_array() { json="$json]"; after_value=1; }
json_add_string() { json_key "$1"; json="$json\"$2\""; }
procd_open_instance() { echo "instance"; }
procd_close_instance() { echo "end"; }
procd_set_param() { echo "param $*"; }
procd_add_jail() { echo "jail $*"; }
procd_open_data() { json="{"; after_value=; }
procd_close_data() { echo "data $json}"; }
procd_add_reload_trigger() { echo "trigger $*"; }
procd_add_reload_interface_trigger() { echo "interface trigger $*"; }
# The configuration comes in the environment: UCI_option.
config_load() { :; }
config_get() { eval "$1=\"\${UCI_$3:-$4}\""; }
config_get_bool() { config_get "$@"; }
config_list_foreach() {
	eval "list=\"\${UCI_$2:-}\""
	for value in $list; do "$3" "$value"; done
}
network_flush_cache() { :; }
stop() { :; }
network_get_device() { eval "$1=\"\${DEVICE_$2:-}\""; }
logger() { shift 5; echo "said $*"; }
