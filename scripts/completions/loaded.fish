# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_loaded_global_optspecs
    string join \n 4/ipv4 6/ipv6 c/config= f/failover D/foreground Q/queue-len= queue-base= U/user= pid-file= wait= allow-weak-sandbox fast= log-level= metrics= control= check print-sandbox= selftest diff h/help V/version
end

function __fish_loaded_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_loaded_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_loaded_using_subcommand
    set -l cmd (__fish_loaded_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c loaded -n "__fish_loaded_needs_command" -s c -l config -d 'Read this configuration; several classic files make one' -r -F
complete -c loaded -n "__fish_loaded_needs_command" -s Q -l queue-len -d 'Packets that may wait in the kernel for one worker [default: the configuration\'s, or 16384]' -r
complete -c loaded -n "__fish_loaded_needs_command" -l queue-base -d 'Netfilter queue of core 0; core n answers queue N + n [default: the configuration\'s, or 0]' -r
complete -c loaded -n "__fish_loaded_needs_command" -s U -l user -d 'Run the workers as this account, never root [default: the configuration\'s, or nobody]' -r
complete -c loaded -n "__fish_loaded_needs_command" -l pid-file -d 'Write the process id of the supervisor to this file' -r -F
complete -c loaded -n "__fish_loaded_needs_command" -l wait -d 'Wait so long (30s, 2m, at most 1h) for sysctls and networks before a start that fails without them gives up' -r
complete -c loaded -n "__fish_loaded_needs_command" -l fast -d 'Let the kernel send packets of known flows on where it can: auto or off [default: the configuration\'s, or auto]' -r -f -a "auto\t''
off\t''"
complete -c loaded -n "__fish_loaded_needs_command" -l log-level -d 'Log what is so grave or graver: error, warning, notice, info or debug [default: the configuration\'s, or info]' -r -f -a "error\t''
warning\t''
notice\t''
info\t''
debug\t''"
complete -c loaded -n "__fish_loaded_needs_command" -l metrics -d 'Serve metrics and a status page by HTTP there: an address with a port, or unix:/PATH [default: the configuration\'s, or nowhere]' -r
complete -c loaded -n "__fish_loaded_needs_command" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_needs_command" -l print-sandbox -d 'Print the sandbox policy of a role (worker, prober, exporter or supervisor), and exit' -r -f -a "worker\t'Reads packets'
prober\t'Checks backends'
exporter\t'Shows metrics and status by HTTP'
supervisor\t'Owns rules, queues and children'"
complete -c loaded -n "__fish_loaded_needs_command" -s 4 -l ipv4 -d 'Serve IPv4 only, even if the files name IPv6 too'
complete -c loaded -n "__fish_loaded_needs_command" -s 6 -l ipv6 -d 'Serve IPv6 only, even if the files name IPv4 too'
complete -c loaded -n "__fish_loaded_needs_command" -s f -l failover -d 'Check backends and take dead ones out'
complete -c loaded -n "__fish_loaded_needs_command" -s D -l foreground -d 'Stay in the foreground and log to stderr; otherwise detach and log to syslog'
complete -c loaded -n "__fish_loaded_needs_command" -l allow-weak-sandbox -d 'Start even if this kernel lacks a layer of the sandbox; the log names the layer'
complete -c loaded -n "__fish_loaded_needs_command" -l check -d 'Validate the configuration, print what would be served, and exit; changes nothing'
complete -c loaded -n "__fish_loaded_needs_command" -l selftest -d 'Try every forbidden act inside the sandbox, print what happened, and exit'
complete -c loaded -n "__fish_loaded_needs_command" -l diff -d 'With --check: print what a reload of the running instance would change'
complete -c loaded -n "__fish_loaded_needs_command" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_needs_command" -s V -l version -d 'Print version'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "status" -d 'Show the state: problems first, then services, backends, processes with their sandbox, queues, counters'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "health" -d 'Say in one word whether clients are served. Exit code: 0 serving, 1 impaired, 2 not serving, 3 nobody answers'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "backend" -d 'Add, remove or weigh a backend of a service; drain, disable or enable one. Holds over reload, upgrade and a killed supervisor, until the next change or the end of the instance'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "drain" -d 'Take this balancer out for maintenance: say "not serving", serve on until clients have another one, then end'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "history" -d 'Show the last changes of membership, each with its cause'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "metrics" -d 'Print all numbers in the text format of Prometheus'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "explain" -d 'Show what would become of a client\'s next packet, and why; changes nothing'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "flows" -d 'List the flows that workers know now, and count them; or end them'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "top" -d 'Watch services and backends: packets, bits and new flows per second, painted again and again'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "events" -d 'Follow the history: print each change of membership and of the verdict as it happens'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "replay" -d 'Show what a worker would do with each packet of a capture (pcap or pcapng); needs no instance and no rights'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "migrate" -d 'Print another balancer\'s configuration as loaded.toml; exit code: 0 all carried over, 1 not all, 2 unreadable'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "config" -d 'Show a configuration whole, with every default'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "doctor" -d 'Examine this host: what keeps packets from being balanced, and the command that fixes it; changes nothing'
complete -c loaded -n "__fish_loaded_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c loaded -n "__fish_loaded_using_subcommand status" -s w -l watch -d 'Show it again every so many seconds, until q is pressed' -r
complete -c loaded -n "__fish_loaded_using_subcommand status" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand status" -l json -d 'Print JSON'
complete -c loaded -n "__fish_loaded_using_subcommand status" -l exit-code -d 'Exit as `loaded health` does: 0 serving, 1 impaired, 2 not serving, 3 nobody answers'
complete -c loaded -n "__fish_loaded_using_subcommand status" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand health" -l service -d 'Judge this service alone' -r
complete -c loaded -n "__fish_loaded_using_subcommand health" -l min-up -d 'Fewer backends up than this count as not serving, in each service' -r
complete -c loaded -n "__fish_loaded_using_subcommand health" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand health" -l json -d 'Print JSON'
complete -c loaded -n "__fish_loaded_using_subcommand health" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -f -a "add" -d 'Add one to a service, until a file says otherwise; returns when workers use it, as its checks allow'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -f -a "remove" -d 'Remove one from a service, until a file says otherwise; its flows go on for the time of the key drain'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -f -a "weight" -d 'Change its weight, until a file says otherwise'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -f -a "drain" -d 'Give it no new flows; its flows go on until the deadline'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -f -a "enable" -d 'Use it again, as its checks allow'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -f -a "disable" -d 'Give it no flows at all; its flows are treated as if it were down'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and not __fish_seen_subcommand_from add remove weight drain enable disable help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from add" -l weight -d 'Its share relative to the others of the service [default: 1]' -r
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from add" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from add" -l backup -d 'Use it only while no other can be used'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from add" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from remove" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from weight" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from weight" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from drain" -l service -d 'In this service only; without it, in every service that has the backend' -r
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from drain" -l deadline -d 'How long its flows may go on: 90s, 5m, 2h, at most 7d [default: the configuration\'s drain]' -r
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from drain" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from drain" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from enable" -l service -d 'In this service only; without it, in every service that has the backend' -r
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from enable" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from enable" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from disable" -l service -d 'In this service only; without it, in every service that has the backend' -r
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from disable" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from disable" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from help" -f -a "add" -d 'Add one to a service, until a file says otherwise; returns when workers use it, as its checks allow'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from help" -f -a "remove" -d 'Remove one from a service, until a file says otherwise; its flows go on for the time of the key drain'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from help" -f -a "weight" -d 'Change its weight, until a file says otherwise'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from help" -f -a "drain" -d 'Give it no new flows; its flows go on until the deadline'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from help" -f -a "enable" -d 'Use it again, as its checks allow'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from help" -f -a "disable" -d 'Give it no flows at all; its flows are treated as if it were down'
complete -c loaded -n "__fish_loaded_using_subcommand backend; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c loaded -n "__fish_loaded_using_subcommand drain" -l deadline -d 'How long it may serve on: 90s, 5m, 2h, at most 7d [default: the configuration\'s drain]' -r
complete -c loaded -n "__fish_loaded_using_subcommand drain" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand drain" -l cancel -d 'Let an instance that was told to end stay'
complete -c loaded -n "__fish_loaded_using_subcommand drain" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand history" -s n -l last -d 'Number of changes, at most 1000' -r
complete -c loaded -n "__fish_loaded_using_subcommand history" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand history" -l json -d 'Print JSON'
complete -c loaded -n "__fish_loaded_using_subcommand history" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand metrics" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand explain" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand explain" -l json -d 'Print JSON'
complete -c loaded -n "__fish_loaded_using_subcommand explain" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l client -d 'Of this client, or of a network of clients: 192.0.2.7, 2001:db8::/64' -r
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l backend -d 'On this backend; with a port, only if it is on that port' -r
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l service -d 'Of this service' -r
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l state -d 'In this state' -r -f -a "half_open\t''
answered\t''
established\t''
client_done\t''
backend_done\t''
last_ack\t''
closing\t''
reset\t''
ended\t''
one_sided\t''
unanswered\t''
replied\t''
datagram\t''
echo\t''"
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l limit -d 'List at most this many; all are counted' -r
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l end -d 'End them: TCP by a reset to each side that sends, UDP as on_backend_down says; needs one of the filters above'
complete -c loaded -n "__fish_loaded_using_subcommand flows" -l json -d 'Print JSON'
complete -c loaded -n "__fish_loaded_using_subcommand flows" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand top" -s i -l interval -d 'Seconds between two looks' -r
complete -c loaded -n "__fish_loaded_using_subcommand top" -s n -l count -d 'Print this many frames, one below the other, and end [default on a terminal: until q is pressed]' -r
complete -c loaded -n "__fish_loaded_using_subcommand top" -l sort -d 'What comes first; on a terminal a key changes it' -r -f -a "config\t'As configured'
flows\t'Flows now'
new\t'New flows per second'
packets\t'Packets per second'
bits\t'Bits per second'
latency\t'How long the last check took'"
complete -c loaded -n "__fish_loaded_using_subcommand top" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c loaded -n "__fish_loaded_using_subcommand events" -s n -l last -d 'Begin with this many past events, at most 1000' -r
complete -c loaded -n "__fish_loaded_using_subcommand events" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand events" -l json -d 'Print JSON, one event a line'
complete -c loaded -n "__fish_loaded_using_subcommand events" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand replay" -s c -l config -d 'Decide by this configuration; several classic files make one [as for starting]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand replay" -l write -d 'Write the packets that would go out to this file, as pcap of raw IP' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand replay" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand replay" -l json -d 'Print JSON: one line per packet, then the sums'
complete -c loaded -n "__fish_loaded_using_subcommand replay" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand migrate" -l from -d 'Whose configuration it is [default: its text tells]' -r -f -a "keepalived\t'keepalived.conf, its virtual servers'
ipvsadm\t'The output of ipvsadm -Sn'
nginx\t'nginx.conf, its block "stream"'
classic\t'loaded.config and loaded.config6'"
complete -c loaded -n "__fish_loaded_using_subcommand migrate" -l vip -d 'The address behind "listen 80" in nginx, which takes every address of its host; may be repeated' -r
complete -c loaded -n "__fish_loaded_using_subcommand migrate" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand migrate" -l failover -d 'The original was started with -f'
complete -c loaded -n "__fish_loaded_using_subcommand migrate" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c loaded -n "__fish_loaded_using_subcommand config; and not __fish_seen_subcommand_from show help" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand config; and not __fish_seen_subcommand_from show help" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "show" -d 'Print the configuration that the running instance serves by, as a TOML file with every key; what was changed at run time is marked'
complete -c loaded -n "__fish_loaded_using_subcommand config; and not __fish_seen_subcommand_from show help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c loaded -n "__fish_loaded_using_subcommand config; and __fish_seen_subcommand_from show" -s c -l config -d 'Not the instance\'s: the one in this file; several classic files make one. Converts the classic format to TOML' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand config; and __fish_seen_subcommand_from show" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand config; and __fish_seen_subcommand_from show" -l save -d 'Write what was changed at run time into the instance\'s file, with its comments and layout, and let it reload'
complete -c loaded -n "__fish_loaded_using_subcommand config; and __fish_seen_subcommand_from show" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "show" -d 'Print the configuration that the running instance serves by, as a TOML file with every key; what was changed at run time is marked'
complete -c loaded -n "__fish_loaded_using_subcommand config; and __fish_seen_subcommand_from help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c loaded -n "__fish_loaded_using_subcommand doctor" -s c -l config -d 'Examine the host for this configuration' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand doctor" -l control -d 'The control socket, to create or to ask [default: /run/loaded/control-PID.sock, or the only one there]' -r -F
complete -c loaded -n "__fish_loaded_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "status" -d 'Show the state: problems first, then services, backends, processes with their sandbox, queues, counters'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "health" -d 'Say in one word whether clients are served. Exit code: 0 serving, 1 impaired, 2 not serving, 3 nobody answers'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "backend" -d 'Add, remove or weigh a backend of a service; drain, disable or enable one. Holds over reload, upgrade and a killed supervisor, until the next change or the end of the instance'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "drain" -d 'Take this balancer out for maintenance: say "not serving", serve on until clients have another one, then end'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "history" -d 'Show the last changes of membership, each with its cause'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "metrics" -d 'Print all numbers in the text format of Prometheus'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "explain" -d 'Show what would become of a client\'s next packet, and why; changes nothing'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "flows" -d 'List the flows that workers know now, and count them; or end them'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "top" -d 'Watch services and backends: packets, bits and new flows per second, painted again and again'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "events" -d 'Follow the history: print each change of membership and of the verdict as it happens'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "replay" -d 'Show what a worker would do with each packet of a capture (pcap or pcapng); needs no instance and no rights'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "migrate" -d 'Print another balancer\'s configuration as loaded.toml; exit code: 0 all carried over, 1 not all, 2 unreadable'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "config" -d 'Show a configuration whole, with every default'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "doctor" -d 'Examine this host: what keeps packets from being balanced, and the command that fixes it; changes nothing'
complete -c loaded -n "__fish_loaded_using_subcommand help; and not __fish_seen_subcommand_from status health backend drain history metrics explain flows top events replay migrate config doctor help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c loaded -n "__fish_loaded_using_subcommand help; and __fish_seen_subcommand_from backend" -f -a "add" -d 'Add one to a service, until a file says otherwise; returns when workers use it, as its checks allow'
complete -c loaded -n "__fish_loaded_using_subcommand help; and __fish_seen_subcommand_from backend" -f -a "remove" -d 'Remove one from a service, until a file says otherwise; its flows go on for the time of the key drain'
complete -c loaded -n "__fish_loaded_using_subcommand help; and __fish_seen_subcommand_from backend" -f -a "weight" -d 'Change its weight, until a file says otherwise'
complete -c loaded -n "__fish_loaded_using_subcommand help; and __fish_seen_subcommand_from backend" -f -a "drain" -d 'Give it no new flows; its flows go on until the deadline'
complete -c loaded -n "__fish_loaded_using_subcommand help; and __fish_seen_subcommand_from backend" -f -a "enable" -d 'Use it again, as its checks allow'
complete -c loaded -n "__fish_loaded_using_subcommand help; and __fish_seen_subcommand_from backend" -f -a "disable" -d 'Give it no flows at all; its flows are treated as if it were down'
complete -c loaded -n "__fish_loaded_using_subcommand help; and __fish_seen_subcommand_from config" -f -a "show" -d 'Print the configuration that the running instance serves by, as a TOML file with every key; what was changed at run time is marked'
