# Completions of kubectl-lookback for fish: the program itself says what may come next.
function __kubectl_lookback
    kubectl-lookback __complete -- (commandline -opc)[2..-1] "$(commandline -ct)" 2>/dev/null
end
complete -c kubectl-lookback -f -a '(__kubectl_lookback | string match -rv "^:")'
complete -c kubectl-lookback -n '__kubectl_lookback | string match -q ":0"' -F
