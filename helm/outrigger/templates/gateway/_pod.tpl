{{- /*
The gateway's pod: the library's container with the gateway's certificate and tokens, as an ordinary container that listens on every address.
*/ -}}

{{- define "outrigger.gateway.name" -}}
{{ include "outrigger.fullname" . }}-gateway
{{- end }}

{{- define "outrigger.gateway.selectorLabels" -}}
{{ include "outrigger.selectorLabels" . }}
app.kubernetes.io/component: gateway
{{- end }}

{{- define "outrigger.gateway.serviceAccountName" -}}
{{- if .Values.gateway.serviceAccount.create -}}
{{- .Values.gateway.serviceAccount.name | default (include "outrigger.gateway.name" .) -}}
{{- else -}}
{{- .Values.gateway.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end }}

{{- define "outrigger.gateway.requirements" -}}
{{- $g := .Values.gateway -}}
{{- if not $g.tls.existingSecret -}}
{{- fail "outrigger: the gateway needs TLS. Set gateway.tls.existingSecret to a Secret with tls.crt and tls.key." -}}
{{- end -}}
{{- if not (or $g.tls.clientCaKey $g.tokens.existingSecret) -}}
{{- fail "outrigger: the gateway needs authentication. Set gateway.tokens.existingSecret to a Secret with callers' tokens, or gateway.tls.clientCaKey to require client certificates." -}}
{{- end -}}
{{- if not (or .Values.sidecar.existingConfigMap.name (dig "kafka" "bootstrap_servers" "" .Values.sidecar.config)) -}}
{{- fail "outrigger: the gateway needs to know its brokers. Set sidecar.config.kafka.bootstrap_servers, such as kafka:9092." -}}
{{- end -}}
{{- end }}

{{- /* What the library's templates see: the settings under `sidecar`, and over them those of the gateway. */ -}}
{{- define "outrigger.gateway.context" -}}
{{- $g := .Values.gateway -}}
{{- $settings := deepCopy .Values.sidecar -}}
{{- $_ := set $settings "listen" (dict "host" "0.0.0.0" "port" .Values.sidecar.listen.port "tls" $g.tls "tokens" $g.tokens) -}}
{{- if eq .Values.sidecar.admin.host "[::]" }}{{ $_ := set $settings.listen "host" "[::]" }}{{ end -}}
{{- $_ := set $settings "resources" $g.resources -}}
{{- $_ := set $settings "extraEnvVars" (concat $settings.extraEnvVars $g.extraEnvVars) -}}
{{- $_ := set $settings "extraVolumes" (concat $settings.extraVolumes $g.extraVolumes) -}}
{{- $_ := set $settings "extraVolumeMounts" (concat $settings.extraVolumeMounts $g.extraVolumeMounts) -}}
{{- with $g.extraEnvVarsCM }}{{ $_ := set $settings "extraEnvVarsCM" . }}{{ end -}}
{{- with $g.extraEnvVarsSecret }}{{ $_ := set $settings "extraEnvVarsSecret" . }}{{ end -}}
{{- toYaml (dict "Values" (dict "outrigger-sidecar" $settings) "Release" (dict "Name" .Release.Name "Namespace" .Release.Namespace)) -}}
{{- end }}

{{- define "outrigger.gateway.container" -}}
{{- $container := include "outrigger-sidecar.container" (include "outrigger.gateway.context" . | fromYaml) | fromYaml -}}
{{- $_ := unset $container "restartPolicy" -}}
{{- /* Until proxies know that it goes, connections still arrive. SIGTERM drains as well. The sleep action is on by default from 1.30 on. */ -}}
{{- if and (not .Values.sidecar.lifecycleHooks) (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}
{{- $_ := set $container "lifecycle" (dict "preStop" (dict "sleep" (dict "seconds" .Values.gateway.stopDelaySeconds))) -}}
{{- end -}}
{{- $grpc := dict "name" "grpc" "containerPort" .Values.sidecar.listen.port "protocol" "TCP" -}}
{{- $_ := set $container "ports" (prepend $container.ports $grpc) -}}
{{- toYaml $container -}}
{{- end }}
