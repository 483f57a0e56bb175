#!/usr/bin/env bash
# A real S3 server for tests: one-node Ceph (mon + OSD on a sparse file + RADOS gateway), loopback only, cephx.
#   rgw.sh DIR HTTP_PORT HTTPS_PORT MON_V2_PORT MON_V1_PORT
# Starts three daemons, whose pids are in DIR/run/*.pid; whoever calls this ends them. About 16 s.
# Debian: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common   (about 70 MB)
# Works as any user. Tried with Ceph 16.2.
set -euo pipefail
dir=$(cd "${1:?state folder}" && pwd) http=${2:?} https=${3:?} mon2=${4:?} mon1=${5:?}
access_key=${TIDEMARK_RGW_ACCESS_KEY:?} secret_key=${TIDEMARK_RGW_SECRET_KEY:?}
conf=$dir/ceph.conf keyring=$dir/keyring log=$dir/log run=$dir/run
mkdir -p "$log" "$run" "$dir"/{mon,osd,crash,tls}
export no_proxy=127.0.0.1,localhost NO_PROXY=127.0.0.1,localhost CEPH_CONF=$conf
until_true() { local tries=$1; shift
  for _ in $(seq "$tries"); do "$@" && return 0; sleep 0.2; done
  echo "gave up waiting for: $*" >&2; return 1; }

openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=localhost \
  -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1' -keyout "$dir/tls/key.pem" -out "$dir/tls/cert.pem" 2>/dev/null
cat "$dir/tls/cert.pem" "$dir/tls/key.pem" >"$dir/tls/rgw.pem"
fsid=$(cat /proc/sys/kernel/random/uuid) mon="[v2:127.0.0.1:$mon2/0,v1:127.0.0.1:$mon1/0]"
cat >"$conf" <<CONF
[global]
fsid = $fsid
mon_host = $mon
mon_initial_members = a
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = $keyring
auth_allow_insecure_global_id_reclaim = false
run_dir = $run
admin_socket = $run/\$cluster-\$name.asok
log_file = $log/\$cluster-\$name.log
crash_dir = $dir/crash
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
mon_data_avail_warn = 1
mon_data_avail_crit = 1
[mon.a]
mon_data = $dir/mon
pid_file = $run/mon.pid
[osd.0]
osd_data = $dir/osd
pid_file = $run/osd.pid
osd_objectstore = bluestore
bluestore_block_size = $((12 * 1024 * 1024 * 1024))
osd_class_dir = /usr/lib/$(uname -m)-linux-gnu/rados-classes
osd_memory_target = 1073741824
[client.rgw]
pid_file = $run/rgw.pid
rgw_frontends = beast endpoint=127.0.0.1:$http ssl_endpoint=127.0.0.1:$https ssl_certificate=$dir/tls/rgw.pem
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_enable_ops_log = false
rgw_gc_obj_min_wait = 10
rgw_gc_processor_period = 10
rgw_gc_processor_max_time = 10
CONF
monmaptool --create --clobber --fsid "$fsid" --addv a "$mon" "$dir/monmap" >/dev/null
ceph-authtool --create-keyring "$keyring" --gen-key -n mon. --cap mon 'allow *' >/dev/null
for name in client.admin client.rgw; do
  ceph-authtool "$keyring" --gen-key -n $name --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' >/dev/null
done
ceph-authtool "$keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap mgr 'allow profile osd' --cap osd 'allow *' >/dev/null
ceph-mon -c "$conf" -i a --mkfs --monmap "$dir/monmap" --keyring "$keyring"
ceph-mon -c "$conf" -i a

id=$(cat /proc/sys/kernel/random/uuid)
timeout 60 ceph -c "$conf" osd new "$id" 0 >/dev/null
ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$id" >/dev/null 2>>"$log/osd-mkfs.log"
ceph-osd -c "$conf" -i 0 >/dev/null
osd_up() { timeout 20 ceph -c "$conf" osd stat 2>/dev/null | grep -q '1 up'; }
until_true 150 osd_up

radosgw -c "$conf" -n client.rgw
until_true 300 curl -sf --noproxy '*' -o /dev/null "http://127.0.0.1:$http/"
radosgw-admin -c "$conf" user create --uid=test --display-name=test --access-key="$access_key" --secret-key="$secret_key" \
  --max-buckets=10000 >/dev/null
